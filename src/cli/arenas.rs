//! How the C library keeps the memory that we free.
//!
//! glibc gives every thread an arena of its own, each of which keeps blocks of megabytes once they were freed in it: a first backup of
//! large media took 290 MiB where it takes 150 with two of them, and more on a machine with more cores (ADR 8). It is told so by
//! the environment alone, at its very beginning; so the program begins again.

#![expect(clippy::disallowed_methods, reason = "this is cli, where the environment may be read")]

use std::os::unix::process::CommandExt;
use std::process::Command;

const VARIABLE: &str = "MALLOC_ARENA_MAX";

/// Begin again with two arenas, in the same process and with the same words, unless somebody has said how many. Comes back when it
/// is so, or when it cannot be done; then we go on as we are. To be called before there is a second thread.
pub fn begin_with_two() {
    if std::env::var_os(VARIABLE).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut words = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    let _ = command.args(words).env(VARIABLE, "2").exec();
}
