//! The program: a runtime around `cli::run`, and its exit code.
//!
//! The runtime is ended with a deadline, so that a blocked call (a hanging network file system, a full pipe) cannot
//! hold up a program that was told to stop. Everything else is in the library.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::WaitOptions;
use synapse_backup::cli;

/// What blocking calls get to end after the verb has returned; with `cli`'s own wait for a verb to clean up this stays
/// below the 5 s in which an interrupted run is over.
const BLOCKING_CALLS_WAIT: Duration = Duration::from_millis(500);

/// How long children that were killed get to be gone.
const CHILDREN_WAIT: Duration = Duration::from_secs(1);

fn main() -> std::io::Result<ExitCode> {
    cli::arenas::begin_with_two();
    let runtime = tokio::runtime::Runtime::new()?;
    let code = runtime.block_on(cli::run());
    runtime.shutdown_timeout(BLOCKING_CALLS_WAIT);
    reap_children();
    Ok(ExitCode::from(code))
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
