//! The list of checks as it grows: each with its figure, and with what it found.
//!
//! A check that finds thousands of things names the first hundred and counts the rest, so that a report stays readable
//! and memory bounded.

use serde::Serialize;

use crate::format::snapshot::{Problem, ProblemKind};

/// Findings of one check that are named; more are counted.
const NAMED_MAX: usize = 100;

/// One check.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// Was it as it should be?
    pub ok: bool,
    /// How much was looked at, and how much was found.
    pub figure: String,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Checks {
    list: Vec<Check>,
    problems: Vec<Problem>,
}

/// What one check found.
#[derive(Debug, Default)]
pub(super) struct Found {
    problems: Vec<Problem>,
    more: u64,
}

impl Found {
    pub(super) fn add(&mut self, kind: ProblemKind, item: impl Into<String>, message: impl Into<String>) {
        if self.problems.len() == NAMED_MAX {
            self.more += 1;
            return;
        }
        self.problems.push(Problem {
            kind,
            item: item.into(),
            message: message.into(),
        });
    }

    pub(super) fn add_all(&mut self, problems: impl IntoIterator<Item = Problem>) {
        for problem in problems {
            self.add(problem.kind, problem.item, problem.message);
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.problems.len() as u64 + self.more
    }
}

impl Checks {
    /// A check that ended; it is ok when it found nothing.
    pub(super) fn add(&mut self, name: impl Into<String>, figure: impl Into<String>, found: Found) {
        let (name, mut figure) = (name.into(), figure.into());
        let count = found.count();
        if count > 0 {
            figure = format!("{figure}; {count} found wrong");
        }
        self.list.push(Check {
            ok: count == 0,
            name,
            figure,
        });
        if let Some(last) = found.problems.last().filter(|_| found.more > 0).cloned() {
            let message = format!("and {} more like this", found.more);
            self.problems.extend(found.problems);
            self.problems.push(Problem { message, ..last });
        } else {
            self.problems.extend(found.problems);
        }
    }

    pub(super) fn all_ok(&self) -> bool {
        self.list.iter().all(|check| check.ok)
    }

    pub(super) fn list(&self) -> &[Check] {
        &self.list
    }

    pub(super) fn take_problems(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.problems)
    }

    pub(super) fn into_list(self) -> Vec<Check> {
        self.list
    }
}

/// `1 table`, `12 tables`.
pub(super) fn counted(count: u64, thing: &str) -> String {
    if count == 1 {
        format!("1 {thing}")
    } else {
        format!("{count} {thing}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_names_a_hundred_things_and_counts_the_others() {
        let (mut checks, mut found) = (Checks::default(), Found::default());
        for number in 0..130 {
            found.add(ProblemKind::Missing, format!("media/{number}"), "it has no file");
        }
        checks.add("media", "130 rows", found);
        assert!(!checks.all_ok());
        assert_eq!(checks.list()[0].figure, "130 rows; 130 found wrong");
        let problems = checks.take_problems();
        assert_eq!(problems.len(), 101);
        assert_eq!(problems[100].message, "and 30 more like this");
    }
}
