//! The few things the operating system is asked: no core dumps, how much memory was held, and who a user is.
//!
//! Users are looked up in the files, not through the C library, so only local ones have names here; others have
//! numbers, and the message says how to find them.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use crate::ops::Error;

/// What is in our memory (keys, passwords, other people's messages) goes into no core dump, of ours or of a child, and no other
/// program of the same user may look into it.
pub(super) fn forbid_core_dumps() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let limited = setrlimit(Resource::Core, none);
    let hidden = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if let Err(error) = limited.and(hidden) {
        tracing::warn!(%error, "core dumps cannot be turned off");
    }
}

/// Cores that this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The most memory this process ever held (`VmHWM`), in bytes; `None` where the kernel does not say.
pub(super) fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// This machine's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "cli is where the time comes from; every floor below is given it"
)]
pub(super) fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// `USER:GROUP`, names or numbers, as ids. Names are looked up in `/etc/passwd` and `/etc/group`.
pub(super) fn owner(text: &str) -> Result<(u32, u32), Error> {
    let hint = "write USER:GROUP, as in --owner matrix-synapse:matrix-synapse, or two numbers";
    let (user, group) = text
        .split_once(':')
        .ok_or_else(|| Error::usage(format!("`--owner {text}` has no group"), hint))?;
    Ok((id(user, "user", "/etc/passwd")?, id(group, "group", "/etc/group")?))
}

fn id(name: &str, what: &str, table: &str) -> Result<u32, Error> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let lines = std::fs::read_to_string(table).unwrap_or_default();
    id_in(&lines, name).ok_or_else(|| {
        Error::usage(
            format!("no {what} `{name}` in {table}"),
            format!("create the {what} first, or give its number where it comes from elsewhere (`getent` shows it)"),
        )
    })
}

/// The third field of the line that begins with this name: both tables have it there.
fn id_in(lines: &str, name: &str) -> Option<u32> {
    let mut fields = lines
        .lines()
        .map(|line| line.split(':'))
        .find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
    fields.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_numbers_taken() {
        let table = "root:x:0:0:root:/root:/bin/sh\nmatrix-synapse:x:112:65534::/var/lib:/bin/false\n";
        for (name, wanted) in [("root", Some(0)), ("matrix-synapse", Some(112)), ("matrix", None), ("", None)] {
            assert_eq!(id_in(table, name), wanted, "{name}");
        }
        assert_eq!(owner("5:7").ok(), Some((5, 7)));
        assert!(owner("5").is_err());
        assert!(owner("no such user:5").is_err());
    }

    #[test]
    fn a_process_holds_memory() {
        assert!(peak_memory_bytes().is_some_and(|bytes| bytes > 100_000));
    }
}
