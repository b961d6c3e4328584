//! The command line: words in, words out, and the exit code.
//!
//! This is the only floor that prints, reads the arguments or the environment, or listens to signals.

mod args;
mod environment;
mod settings;
