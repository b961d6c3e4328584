//! The table of contents of an archive, as `pg_restore --list --verbose` prints it, and which of its entries to load when.
//!
//! Loading all indexes after all rows leaves cores idle: `pg_restore` knows no sizes here, and the largest index may be
//! built last and alone. A table whose rows come in a stream of their own has its indexes built as soon as they are
//! there, beside the rows of other tables. Only what depends on nothing but that table is taken forward: indexes and
//! constraints that are indexes. Pure; the archive runs `pg_restore`.

use std::collections::{HashMap, HashSet};

/// What an archive holds, and what of it is to be loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Contents {
    entries: Vec<Entry>,
    left_out: Vec<String>,
    /// By `schema.table`: the list of the indexes that are built by themselves.
    apart: HashMap<String, String>,
    /// Their ids.
    taken: HashSet<u32>,
}

/// `3358; 1259 16400 INDEX public events_ts synapse`, and the ids it depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    id: u32,
    line: String,
    depends_on: Vec<u32>,
}

impl Entry {
    /// What follows the ids: the kind, the schema, the name, the owner.
    fn description(&self) -> &str {
        self.line.splitn(4, ' ').nth(3).unwrap_or_default()
    }

    /// Does it make this table, given as `schema.table`? Names are printed without quotes, so whichever dot it is.
    fn makes(&self, table: &str) -> bool {
        let Some(names) = self.description().strip_prefix("TABLE ") else {
            return false;
        };
        table.match_indices('.').any(|(at, _)| {
            let name = names.strip_prefix(&table[..at]).and_then(|rest| rest.strip_prefix(' '));
            name.and_then(|name| name.strip_prefix(&table[at + 1..]))
                .is_some_and(|rest| rest.starts_with(' '))
        })
    }

    fn is_index(&self) -> bool {
        self.description().starts_with("INDEX ") || self.description().starts_with("CONSTRAINT ")
    }
}

impl Contents {
    /// Read it. The lines that are left out are remembered.
    pub(super) fn read(text: &str, superuser: bool) -> Self {
        let mut contents = Self::default();
        for line in text.lines() {
            if let Some(ids) = line.strip_prefix(";\tdepends on:") {
                let ids = ids.split_whitespace().filter_map(|id| id.parse().ok());
                if let Some(entry) = contents.entries.last_mut() {
                    entry.depends_on = ids.collect();
                }
            } else if let Some(id) = line.split(';').next().and_then(|id| id.parse().ok()) {
                if is_left_out(line, superuser) {
                    contents.left_out.push(line.to_owned());
                }
                contents.entries.push(Entry {
                    id,
                    line: line.to_owned(),
                    depends_on: Vec::new(),
                });
            }
        }
        contents
    }

    pub(super) fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// The indexes of these tables are built by themselves.
    pub(super) fn set_apart(&mut self, tables: &[String]) {
        for table in tables {
            let Some(made) = self.entries.iter().find(|entry| entry.makes(table)).map(|entry| entry.id) else {
                continue;
            };
            let own = |entry: &&Entry| entry.is_index() && !entry.depends_on.is_empty() && entry.depends_on.iter().all(|id| *id == made);
            let own: Vec<&Entry> = self.entries.iter().filter(own).collect();
            let list: Vec<&str> = own.iter().map(|entry| entry.line.as_str()).collect();
            if !list.is_empty() {
                self.apart.insert(table.clone(), list.join("\n"));
                self.taken.extend(own.iter().map(|entry| entry.id));
            }
        }
    }

    /// The list of the indexes of a table that was set apart; none when it has none.
    pub(super) fn indexes_of(&self, table: &str) -> Option<&str> {
        self.apart.get(table).map(String::as_str)
    }

    /// The list of everything else.
    pub(super) fn all(&self) -> String {
        let kept = self.entries.iter().filter(|entry| !self.taken.contains(&entry.id));
        let kept = kept.filter(|entry| !self.left_out.contains(&entry.line));
        kept.map(|entry| entry.line.as_str()).collect::<Vec<_>>().join("\n")
    }
}

/// Of a table of contents, the list to load and the lines that are left out; no list when none is.
pub(super) fn split_contents(contents: &str, superuser: bool) -> (Option<String>, Vec<String>) {
    let (kept, left_out): (Vec<&str>, Vec<&str>) = contents.lines().partition(|line| !is_left_out(line, superuser));
    let list = if left_out.is_empty() { None } else { Some(kept.join("\n")) };
    (list, left_out.into_iter().map(str::to_owned).collect())
}

/// `3358; 0 0 COMMENT - EXTENSION pg_trgm `, and the comment on the schema `public`, which servers before 15 give to
/// their own superuser. Nobody loads the owner of `public`, `3; 2615 2200 SCHEMA - public postgres`: `pg_dump` since 15
/// writes that superuser's name for servers before 15, which the target may not have; a new database gives `public` to
/// whom it should. It is the one schema of that number, or a name without a space: names are printed without quotes.
fn is_left_out(line: &str, superuser: bool) -> bool {
    let mut words = line.splitn(4, ' ').skip(2);
    let (oid, entry) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let is_public = entry
        .strip_prefix("SCHEMA - public ")
        .is_some_and(|owner| oid == PUBLIC_OID || !owner.contains(' '));
    let needs_superuser = entry.starts_with("COMMENT - EXTENSION ") || entry.starts_with("COMMENT - SCHEMA public ");
    line.starts_with(|first: char| first.is_ascii_digit()) && (is_public || needs_superuser && !superuser)
}

/// Of the schema `public` that a database begins with (`pg_namespace.dat` of PostgreSQL).
const PUBLIC_OID: &str = "2200";

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const TEXT: &str = "\
;
; Archive created at 2026-11-01 00:00:00 UTC
;     TOC Entries: 9
;
2; 3079 16400 EXTENSION - pg_trgm 
3359; 0 0 COMMENT - EXTENSION pg_trgm 
;	depends on: 2
215; 1259 16385 TABLE public events synapse
216; 1259 16390 TABLE Odd one big.table synapse
217; 1259 16395 TABLE public events_old synapse
3201; 2606 16401 CONSTRAINT public events events_pkey synapse
;	depends on: 215
3202; 1259 16402 INDEX public events_ts synapse
;	depends on: 215 215
3203; 1259 16403 INDEX public events_words synapse
;	depends on: 215 3201
3204; 1259 16404 INDEX public old_ts synapse
;	depends on: 217
3205; 1259 16405 INDEX Odd one big.table_text synapse
;	depends on: 216
3206; 2606 16406 FK CONSTRAINT public events_old old_fk synapse
;	depends on: 215 217 3201
";

    #[test]
    fn only_what_depends_on_nothing_but_its_table_is_taken_forward() {
        let mut contents = Contents::read(TEXT, true);
        let names = ["public.events", "Odd one.big.table", "public.nothing"].map(str::to_owned);
        contents.set_apart(&names);
        let ids = |list: &str| -> Vec<String> { list.lines().map(|line| line.split(';').next().unwrap().to_owned()).collect() };
        assert_eq!(ids(contents.indexes_of("public.events").unwrap()), ["3201", "3202"]);
        assert_eq!(ids(contents.indexes_of("Odd one.big.table").unwrap()), ["3205"]);
        assert_eq!(contents.indexes_of("public.nothing"), None);
        assert_eq!(
            ids(&contents.all()),
            ["2", "3359", "215", "216", "217", "3203", "3204", "3206"],
            "everything else is loaded as before"
        );
    }

    #[test]
    fn who_is_no_superuser_leaves_out_what_others_own() {
        let contents = Contents::read(TEXT, false);
        assert_eq!(contents.left_out(), ["3359; 0 0 COMMENT - EXTENSION pg_trgm "]);
        assert!(!contents.all().contains("COMMENT"));
        assert!(contents.all().contains("EXTENSION - pg_trgm"));
    }

    #[test]
    fn only_what_others_own_is_left_out() {
        for (line, expected, of_superuser) in [
            ("3358; 0 0 COMMENT - EXTENSION pg_trgm ", true, false),
            ("3357; 0 0 COMMENT - SCHEMA public postgres", true, false),
            ("3; 2615 2200 SCHEMA - public postgres", true, true),
            ("3; 2615 2200 SCHEMA - public the admin", true, true),
            ("3; 2615 16999 SCHEMA - public postgres", true, true),
            ("4; 2615 16388 SCHEMA - public things synapse", false, false),
            ("5; 2615 16389 SCHEMA - publications synapse", false, false),
            ("3360; 0 0 ACL - SCHEMA public postgres", false, false),
            ("2; 3079 16400 EXTENSION - pg_trgm ", false, false),
            ("3359; 0 0 COMMENT public TABLE users synapse", false, false),
            ("; Archive created at 0 0 COMMENT - EXTENSION x", false, false),
            ("", false, false),
        ] {
            assert_eq!(
                (is_left_out(line, false), is_left_out(line, true)),
                (expected, of_superuser),
                "{line}"
            );
        }
        assert_eq!(split_contents("2; 3079 16400 EXTENSION - pg_trgm ", false).0, None);
    }
}
