//! Logs: `tracing` to standard error, as text for people and as JSON lines beside `--json`.
//!
//! Standard output never carries a log line. Warnings by default, our own debug lines with `-v`, errors only with `-q`.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use super::ui::Screen;

/// Begin to log. Called once by a program; where a subscriber is set already (a library user's), that one stays.
pub(super) fn begin(screen: &Screen, quiet: bool, verbose: bool) {
    let filter = match (quiet, verbose) {
        (true, _) => "error",
        (_, true) => "warn,synapse_backup=debug",
        _ => "warn",
    };
    let lines = screen.clone();
    let begun = fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_ansi(screen.colour_err())
        .with_target(false)
        .with_writer(move || lines.log_lines());
    // A second subscriber is refused, which is what we want of it.
    let _ = if screen.for_program() {
        begun.json().try_init()
    } else {
        begun.try_init()
    };
}
