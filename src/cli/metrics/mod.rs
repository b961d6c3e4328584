//! Those who were not there are told how a run ended: Prometheus by a text file, a monitor by a ping.
//!
//! It is about what timers run: `backup`, `prune`, `drill`, `verify` and `copy`, however they end. Nothing that goes wrong
//! here changes how the run itself ends: it is a warning in the log. The machine's own clock says when a run was, since that is
//! what a monitor compares it with; the time of a snapshot is the store's.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::args::Command;
use super::exit::{DONE, INTERRUPTED, Outcome};
use super::settings::{COMMAND, Metrics};
use super::ui;
use crate::store::counters::Totals;
use crate::store::url::RepositoryUrl;
use ping::{Patience, Ping};
use text::{Figures, Labels};

mod file;
mod ping;
mod text;

/// Once is enough, since the end is told as well, and must not overtake the begin: a short run waits for this.
const AT_START: Patience = Patience {
    tries: 1,
    time: Duration::from_secs(5),
    pause: Duration::ZERO,
};
/// The end is what counts.
const AT_END: Patience = Patience {
    tries: 4,
    time: Duration::from_secs(5),
    pause: Duration::from_secs(1),
};
/// Who was told to stop has no time left.
const INTERRUPTED_END: Patience = Patience {
    tries: 1,
    time: Duration::from_secs(1),
    pause: Duration::ZERO,
};
/// A folder on a file system that hangs must not hold up the end. Nobody can call back what the kernel waits for: after this
/// the thread is left alone, and ends with the process, at the latest `main`'s wait for blocking calls after the last ping.
const FILE_TIME: Duration = Duration::from_secs(5);
/// A line for the monitor, not a log.
const LINE_CHARS_MAX: usize = 1_000;

/// Who is told, and about what.
pub(super) struct Reporter {
    command: &'static str,
    /// Without anything that does not parse: that might be a secret.
    repository: String,
    textfile: Option<PathBuf>,
    ping_url: Option<Zeroizing<String>>,
}

/// How a run ended, as far as its outcome tells.
#[derive(Debug, Default)]
pub(super) struct Told {
    server_name: String,
    problems: u64,
    snapshot_time: Option<Timestamp>,
    drill: Option<DrillTold>,
    error: Option<String>,
}

#[derive(Debug)]
struct DrillTold {
    seconds: f64,
    snapshot_time: Option<Timestamp>,
    passed: bool,
}

/// The end of a run in numbers.
pub(super) struct End<'a> {
    pub(super) exit_code: u8,
    pub(super) time: Duration,
    pub(super) totals: &'a Totals,
    pub(super) now: Timestamp,
}

impl Reporter {
    /// `None` where there is nobody to tell, or nothing: a dry run has done nothing.
    pub(super) fn new(command: &Command, repository: Option<&str>, metrics: &Metrics) -> Option<Self> {
        let is_told = match command {
            Command::Backup(words) => !words.dry_run,
            Command::Prune(words) => !words.dry_run,
            Command::Copy(words) => !words.dry_run,
            Command::Drill(_) | Command::Verify(_) => true,
            _ => false,
        };
        let repository = repository.and_then(|url| url.parse::<RepositoryUrl>().ok());
        let command = command.name();
        let reporter = Self {
            command,
            repository: repository.map(|url| url.to_string()).unwrap_or_default(),
            textfile: metrics.textfile.clone().map(|file| file.0),
            ping_url: metrics.ping_url.as_ref().map(|url| Zeroizing::new(url.0.replace(COMMAND, command))),
        };
        (is_told && (reporter.textfile.is_some() || reporter.ping_url.is_some())).then_some(reporter)
    }

    /// A run begins.
    pub(super) async fn start(&self) {
        self.ping(Ping::Start, "", AT_START).await;
    }

    /// It ended.
    pub(super) async fn end(&self, told: &Told, end: &End<'_>) {
        self.write(told, end).await;
        let (ping, patience) = match end.exit_code {
            DONE => (Ping::Success, AT_END),
            INTERRUPTED => (Ping::Failure, INTERRUPTED_END),
            _ => (Ping::Failure, AT_END),
        };
        self.ping(ping, &self.line(told, end), patience).await;
    }

    async fn ping(&self, ping: Ping, body: &str, patience: Patience) {
        if let Some(url) = &self.ping_url
            && let Err(why) = Box::pin(ping::send(url, ping, body, patience)).await
        {
            tracing::warn!("the monitor of `metrics.ping_url` was not told: {why}");
        }
    }

    async fn write(&self, told: &Told, end: &End<'_>) {
        let Some(path) = self.textfile.clone() else { return };
        let labels = Labels {
            command: self.command.to_owned(),
            server_name: told.server_name.clone(),
            repository: self.repository.clone(),
        };
        let figures = self.figures(told, end);
        let shown = path.display().to_string();
        let work = tokio::task::spawn_blocking(move || file::update(&path, |standing| text::merged(standing, &labels, &figures)));
        let why = match tokio::time::timeout(FILE_TIME, work).await {
            Ok(Ok(Ok(()))) => return,
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("its folder did not answer within {} s, and is not waited for", FILE_TIME.as_secs()),
        };
        tracing::warn!("`metrics.textfile` {shown} could not be written: {why}");
    }

    fn figures(&self, told: &Told, end: &End<'_>) -> Figures {
        let flag = |is_true: bool| u8::from(is_true).to_string();
        let now = end.now.as_second().to_string();
        let mut figures = Figures::from([
            ("last_run_time_seconds", now.clone()),
            ("success", flag(end.exit_code == DONE)),
            ("exit_code", end.exit_code.to_string()),
            ("duration_seconds", format!("{:.1}", end.time.as_secs_f64())),
            ("sent_bytes", end.totals.sent_bytes.to_string()),
            ("received_bytes", end.totals.received_bytes.to_string()),
            ("problems", told.problems.to_string()),
        ]);
        if end.exit_code == DONE {
            figures.insert("last_success_time_seconds", now);
        }
        if let Some(time) = told.snapshot_time {
            figures.insert("snapshot_time_seconds", time.as_second().to_string());
        }
        if self.command == "drill" {
            let passed = told.drill.as_ref().is_some_and(|drill| drill.passed);
            figures.insert("drill_success", flag(passed));
        }
        if let Some(drill) = &told.drill {
            figures.insert("drill_seconds", format!("{:.1}", drill.seconds));
            if let Some(time) = drill.snapshot_time.filter(|_| drill.passed) {
                figures.insert("drill_snapshot_time_seconds", time.as_second().to_string());
            }
        }
        figures
    }

    /// `backup: exit code 10: no repository at s3://offsite/matrix`
    fn line(&self, told: &Told, end: &End<'_>) -> String {
        let problems = match told.problems {
            0 => String::new(),
            1 => ", 1 problem".to_owned(),
            many => format!(", {many} problems"),
        };
        let error = told.error.as_deref().and_then(|error| error.lines().next());
        let error = error.map(|error| format!(": {error}")).unwrap_or_default();
        let line = format!(
            "{}: exit code {}, {:.1} s{problems}{error}",
            self.command,
            end.exit_code,
            end.time.as_secs_f64()
        );
        line.chars().take(LINE_CHARS_MAX).collect()
    }
}

impl Told {
    /// What there is to tell of it.
    pub(super) fn of(ended: &anyhow::Result<Outcome>) -> Self {
        let parsed = |time: &str| time.parse().ok();
        let mut told = Self::default();
        match ended {
            Err(error) => told.error = Some(ui::tell(error).message),
            Ok(Outcome::BackedUp(report)) => {
                told.server_name.clone_from(&report.server_name);
                told.problems = report.problem_count;
                told.snapshot_time = report.time.as_deref().and_then(parsed);
            }
            Ok(Outcome::Drilled(report)) => {
                told.server_name.clone_from(&report.server_name);
                told.problems = report.problems.len() as u64;
                told.drill = Some(DrillTold {
                    seconds: report.drill_seconds,
                    snapshot_time: parsed(&report.time),
                    passed: report.passed,
                });
            }
            Ok(Outcome::Verified(report)) => told.problems = report.problems.len() as u64,
            Ok(Outcome::Pruned(report)) => told.problems = report.problems.len() as u64,
            Ok(Outcome::Copied { report, .. }) => told.problems = report.problems.len() as u64,
            Ok(_) => {}
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{backup, drill};

    const URL: &str = "s3://offsite/matrix";

    fn reporter(command: &'static str) -> Reporter {
        Reporter {
            command,
            repository: URL.into(),
            textfile: None,
            ping_url: None,
        }
    }

    fn end(exit_code: u8, totals: &Totals) -> End<'_> {
        End {
            exit_code,
            time: Duration::from_millis(1_500),
            totals,
            now: Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(5_000),
        }
    }

    fn of<'a>(figures: &'a Figures, name: &str) -> Option<&'a str> {
        figures.get(name).map(String::as_str)
    }

    #[test]
    fn a_backup_tells_its_snapshot_and_its_problems() {
        let report = backup::Report {
            server_name: "example.org".into(),
            time: Some("1970-01-01T01:00:00Z".into()),
            problem_count: 2,
            ..backup::Report::default()
        };
        let told = Told::of(&Ok(Outcome::BackedUp(report)));
        let totals = Totals {
            sent_bytes: 7,
            ..Totals::default()
        };
        let figures = reporter("backup").figures(&told, &end(3, &totals));
        for (name, value) in [
            ("last_run_time_seconds", Some("5000")),
            ("last_success_time_seconds", None),
            ("success", Some("0")),
            ("exit_code", Some("3")),
            ("duration_seconds", Some("1.5")),
            ("sent_bytes", Some("7")),
            ("problems", Some("2")),
            ("snapshot_time_seconds", Some("3600")),
            ("drill_success", None),
        ] {
            assert_eq!(of(&figures, name), value, "{name}");
        }
        assert_eq!(
            reporter("backup").line(&told, &end(3, &totals)),
            "backup: exit code 3, 1.5 s, 2 problems"
        );
    }

    #[test]
    fn a_drill_tells_the_snapshot_only_if_it_passed() {
        let drilled = |passed| drill::Report {
            snapshot: String::new(),
            server_name: "example.org".into(),
            time: "1970-01-01T01:00:00Z".into(),
            media: String::new(),
            passed,
            recorded: true,
            drill_seconds: 12.34,
            checks: Vec::new(),
            problems: Vec::new(),
        };
        let totals = Totals::default();
        for (ended, code, success, seconds, snapshot) in [
            (Ok(drilled(true)), 0, "1", Some("12.3"), Some("3600")),
            (Ok(drilled(false)), 1, "0", Some("12.3"), None),
            (Err(anyhow::anyhow!("no initdb")), 1, "0", None, None),
        ] {
            let told = Told::of(&ended.map(Outcome::Drilled));
            let figures = reporter("drill").figures(&told, &end(code, &totals));
            assert_eq!(of(&figures, "drill_success"), Some(success));
            assert_eq!(of(&figures, "drill_seconds"), seconds);
            assert_eq!(of(&figures, "drill_snapshot_time_seconds"), snapshot);
        }
    }

    #[test]
    fn a_failure_is_told_in_one_line() {
        let told = Told::of(&Err(anyhow::anyhow!("why\nand more").context("open the repository\nat x")));
        let line = reporter("verify").line(&told, &end(10, &Totals::default()));
        assert_eq!(line, "verify: exit code 10, 1.5 s: open the repository");
    }
}
