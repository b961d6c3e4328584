//! The program: a runtime around `cli::run`, and its exit code.
//!
//! The runtime is ended with a deadline, so that a blocked call (a hanging network file system, a full pipe) cannot
//! hold up a program that was told to stop. Everything else is in the library.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use rustix::process::WaitOptions;
use synapse_backup::cli;

/// What blocking calls get to end after the verb has returned; with `cli`'s own wait for a verb to clean up this stays
/// below the 5 s in which an interrupted run is over.
const BLOCKING_CALLS_WAIT: Duration = Duration::from_millis(500);

/// How long children that were killed get to be gone.
const CHILDREN_WAIT: Duration = Duration::from_secs(1);

/// glibc gives every thread an arena of its own, each of which keeps what was freed in it: buffers of megabytes, so a first backup
/// of large media took 290 MiB where it takes 150 with two of them, and more on a machine with more cores (measured:
/// docs/adr/0008). It can be told so by the environment alone.
const ARENAS: (&str, &str) = ("MALLOC_ARENA_MAX", "2");

fn main() -> std::io::Result<ExitCode> {
    if std::env::var_os(ARENAS.0).is_none() {
        // Comes back only when it did not work; then we go on as we are.
        let _ = begin_again_with_few_arenas();
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let code = runtime.block_on(cli::run());
    runtime.shutdown_timeout(BLOCKING_CALLS_WAIT);
    reap_children();
    Ok(ExitCode::from(code))
}

/// The same program, with the same words, in the same process.
fn begin_again_with_few_arenas() -> std::io::Error {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error,
    };
    let mut words = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    command.args(words).env(ARENAS.0, ARENAS.1).exec()
}

/// Wait for children (`pg_dump`, `psql`) that an interrupted verb has killed, so that none outlives us, not even as a zombie.
fn reap_children() {
    let begun = Instant::now();
    while begun.elapsed() < CHILDREN_WAIT {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Err(_) => return,
            Ok(Some(_)) => {}
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
