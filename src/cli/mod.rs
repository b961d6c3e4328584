//! The command line: words in, words out, and the exit code.
//!
//! This is the only floor that prints, reads the arguments or the environment, or listens to signals. A call goes
//! `args` (as typed) → `settings` (file and environment) → `options` (checked) → `commands` (one call of a verb) →
//! `exit` and `ui` (what to say). Nothing here knows how a backup is made.

use std::ffi::OsString;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use args::Args;
use commands::Session;
use environment::Environment;
use exit::Outcome;
use metrics::Reporter;
use ui::{Audience, End, Screen, Watcher};

use crate::ops::{self, Run};
use crate::store::counters::{Counters, Totals};

pub mod arenas;
mod args;
mod commands;
mod connect;
mod environment;
mod exit;
mod keyring;
mod logs;
mod metrics;
mod options;
mod secrets;
mod settings;
mod system;
mod terminal;
mod ui;

/// What a verb gets to abort its uploads and end its children after the first signal. With the runtime's own end this
/// stays below the 5 s that are promised.
const CLEAN_UP_WAIT: Duration = Duration::from_secs(4);
/// How often the progress looks at the clock.
const TICK: Duration = Duration::from_secs(1);

/// Do what the command line of this process says, and give back the exit code.
pub async fn run() -> u8 {
    let began = Instant::now();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let environment = Environment::of_process();
    let words = match args::parse(&arguments) {
        Ok(words) => words,
        Err(answer) => return answered(&answer, &arguments, began),
    };
    let audience = match (words.json, words.quiet) {
        (true, quiet) => Audience::Program { quiet },
        (false, true) => Audience::QuietPerson,
        (false, false) => Audience::Person,
    };
    let screen = Screen::new(audience, &environment);
    logs::begin(&screen, words.quiet, words.verbose);
    system::forbid_core_dumps();
    let watcher = Watcher::new(&screen);
    let counters = Arc::new(Counters::default());
    let mut reporter = None;
    let ended = Box::pin(called(&words, &environment, &screen, &watcher, &counters, &mut reporter)).await;
    watcher.clear();
    let told = metrics::Told::of(&ended);
    let code = tell(ended, Some(words.command.name()), &screen, &counters, began);
    if let Some(reporter) = reporter {
        let end = metrics::End {
            exit_code: code,
            time: began.elapsed(),
            totals: &counters.totals(),
            now: system::now(),
        };
        until_told(Box::pin(reporter.end(&told, &end))).await;
    }
    code
}

/// Settings, signals, the verb.
async fn called(
    words: &Args,
    environment: &Environment,
    screen: &Screen,
    watcher: &Watcher,
    counters: &Arc<Counters>,
    reporter: &mut Option<Reporter>,
) -> anyhow::Result<Outcome> {
    let mut settings = match &words.command {
        command if words.json && command.owns_stdout() => {
            return Err(ops::Error::usage(
                format!("`{}` has no JSON form: what it prints is not ours", command.name()),
                "leave out --json",
            )
            .into());
        }
        // Both speak of the grammar alone: broken settings must not stand in their way.
        args::Command::Completions(_) | args::Command::Man => settings::Settings::default(),
        _ => settings::load(words.config.as_deref(), environment)?,
    };
    settings.keys.signers.clone_from(&words.keys.signers);
    settings.keys.accept_unsigned = words.keys.accept_unsigned;
    settings.keys.identities = keyring::IdentityFiles::new(&words.keys.identities, environment);
    settings.keys.make_writer_key = matches!(words.command, args::Command::Init(_));
    let cancel = CancellationToken::new();
    let session = Session {
        repository: words.repository.as_deref(),
        config: words.config.as_deref(),
        settings: &settings,
        environment,
        screen,
        counters,
        run: Run {
            progress: watcher,
            cancel: cancel.clone(),
        },
    };
    let repository = words.repository.as_deref().or(settings.repository.as_deref());
    *reporter = Reporter::new(&words.command, repository, &settings.metrics);
    let begun = cancel.run_until_cancelled(Box::pin(begun(reporter.as_ref())));
    // Boxed: the verbs are large values, and few stacks like to move them.
    let verb = Box::pin(commands::dispatch(&words.command, &session));
    let (ended, _) = tokio::join!(until_signal(verb, &cancel, watcher, screen), begun);
    ended.map_err(|error| keyring::explained(error, &settings))
}

/// Tell that a run begins, where somebody wants to know. The run goes on meanwhile.
async fn begun(reporter: Option<&Reporter>) {
    if let Some(reporter) = reporter {
        reporter.start().await;
    }
}

/// The run is over, and those who are told about it may be slow: a signal ends that too.
async fn until_told(telling: impl Future<Output = ()>) {
    let Ok(mut signals) = Signals::new() else { return };
    tokio::select! {
        () = telling => {}
        () = signals.next() => {}
    }
}

/// Drive the verb. The first signal asks it to stop, the second (or time) leaves it where it is.
async fn until_signal(
    verb: impl Future<Output = anyhow::Result<Outcome>>,
    cancel: &CancellationToken,
    watcher: &Watcher,
    screen: &Screen,
) -> anyhow::Result<Outcome> {
    let mut signals = Signals::new()?;
    let mut clock = tokio::time::interval(TICK);
    let mut verb = std::pin::pin!(verb);
    loop {
        tokio::select! {
            ended = &mut verb => return ended,
            () = signals.next() => break,
            _ = clock.tick() => watcher.tick(),
        }
    }
    cancel.cancel();
    watcher.clear();
    if screen.audience == Audience::Person {
        screen.tell("stopping: uploads are aborted, nothing is committed (once more to stop at once)\n");
    }
    tokio::select! {
        // What ended well in the meantime is done; what failed after the signal failed because of it.
        ended = &mut verb => ended.map_err(|error| error.context(ops::Error::interrupted())),
        () = signals.next() => Err(ops::Error::interrupted().into()),
        () = tokio::time::sleep(CLEAN_UP_WAIT) => Err(ops::Error::interrupted().into()),
    }
}

/// Ctrl-C and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Say how it ended, and give back the code.
fn tell(ended: anyhow::Result<Outcome>, command: Option<&str>, screen: &Screen, counters: &Arc<Counters>, began: Instant) -> u8 {
    let time = began.elapsed();
    let totals = counters.totals();
    let ended = ended.and_then(|outcome| {
        if !screen.for_program()
            && let Err(error) = screen.data(&ui::look(&outcome, screen.colour_out(), screen.columns_out()))
            // Whoever looked at it may stop reading; how it ended stays what it is.
            && !screen.reader_gone()
        {
            return Err(error);
        }
        Ok(outcome)
    });
    // A verb that only prints, and nobody reads on: `| head` got what it wanted.
    if ended.is_err() && screen.reader_gone() {
        return exit::DONE;
    }
    let code = ended.as_ref().map_or_else(exit::of_error, exit::of_outcome);
    let told = ended.as_ref().err().map(ui::tell);
    if screen.for_program() {
        let end = End {
            command,
            exit_code: code,
            error: told.as_ref(),
            time,
            totals: &totals,
            peak_memory_bytes: system::peak_memory_bytes(),
        };
        match ui::report(&end, ended.as_ref().ok()) {
            Ok(line) => Screen::event(&line),
            Err(error) => screen.tell(&format!("error: the report cannot be written as JSON\n  cause: {error}\n")),
        }
    }
    match (&ended, told) {
        (Ok(outcome), _) if !screen.for_program() => {
            let problems_only = screen.audience == Audience::QuietPerson;
            screen.tell(&ui::summary(outcome, &totals, time, problems_only, screen.colour_err()));
        }
        (Err(_), Some(told)) => screen.tell(&ui::error_lines(&told, screen.colour_err())),
        _ => {}
    }
    code
}

/// clap's own answer: help and version on standard output, usage errors on standard error, with a report for programs.
fn answered(answer: &clap::Error, arguments: &[OsString], began: Instant) -> u8 {
    let code = u8::try_from(answer.exit_code()).unwrap_or(exit::USAGE);
    let whole = answer.render().to_string();
    let text = secrets::without(&whole, arguments);
    if text == whole {
        let _ = answer.print();
    } else {
        let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
    }
    let (json, command) = args::intention(arguments);
    if json && answer.use_stderr() {
        let message = text.lines().next().unwrap_or_default();
        let told = ui::Told {
            message: message.strip_prefix("error: ").unwrap_or(message).to_owned(),
            cause: None,
            hint: Some("--help lists all commands and flags".to_owned()),
        };
        let end = End {
            command,
            exit_code: code,
            error: Some(&told),
            time: began.elapsed(),
            totals: &Totals::default(),
            peak_memory_bytes: system::peak_memory_bytes(),
        };
        if let Ok(line) = ui::report(&end, None) {
            Screen::event(&line);
        }
    }
    code
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn signal_ourselves() {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
    }

    /// One test: a signal is for the whole process, so two of these at once would stop each other.
    #[tokio::test]
    async fn a_signal_ends_the_verb_and_a_second_one_ends_it_at_once() {
        let screen = Screen::new(Audience::QuietPerson, &Environment::default());
        let watcher = Watcher::new(&screen);

        let cancel = CancellationToken::new();
        let obedient = async {
            signal_ourselves();
            cancel.cancelled().await;
            Err(anyhow::anyhow!("the upload was aborted"))
        };
        let ended = until_signal(obedient, &cancel, &watcher, &screen).await;
        assert_eq!(exit::of_error(&ended.unwrap_err()), exit::INTERRUPTED);

        let cancel = CancellationToken::new();
        let already_there = async {
            signal_ourselves();
            cancel.cancelled().await;
            Ok(Outcome::Printed)
        };
        assert!(until_signal(already_there, &cancel, &watcher, &screen).await.is_ok());

        let cancel = CancellationToken::new();
        let stubborn = async {
            signal_ourselves();
            cancel.cancelled().await;
            signal_ourselves();
            std::future::pending().await
        };
        let began = Instant::now();
        let ended = until_signal(stubborn, &cancel, &watcher, &screen).await;
        assert_eq!(exit::of_error(&ended.unwrap_err()), exit::INTERRUPTED);
        assert!(began.elapsed() < CLEAN_UP_WAIT, "{:?}", began.elapsed());

        let cancel = CancellationToken::new();
        let hanging = async {
            signal_ourselves();
            std::future::pending().await
        };
        let began = Instant::now();
        let ended = until_signal(hanging, &cancel, &watcher, &screen).await;
        assert_eq!(exit::of_error(&ended.unwrap_err()), exit::INTERRUPTED);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}
