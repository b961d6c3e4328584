//! What this machine knows of a PostgreSQL that runs on it: where its sockets are, to tell an administrator where its own
//! superuser gets in, and how much memory is free for it.
//!
//! Synapse mostly connects over TCP with a password; `postgres` mostly has none, and gets in over the socket alone. Its
//! folder stands in no configuration of Synapse, but the kernel knows it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Every unix socket of this network namespace (proc(5)).
const SOCKETS: &str = "/proc/net/unix";

/// Memory of this machine that is there for the asking (proc(5)).
const MEMORY: &str = "/proc/meminfo";

/// Is a server at this address on this machine? A socket is, and the loopback interface (unless something forwards it).
pub fn is_here(host: Option<&str>) -> bool {
    host.is_none_or(|host| host.starts_with(['/', '@']) || host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()))
}

/// Memory that programs could still have on this machine, in KiB.
pub fn free_kib() -> Option<u64> {
    free_in(&std::fs::read_to_string(MEMORY).ok()?)
}

fn free_in(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// The folder of the socket of the server with this port, if one listens here.
pub fn socket_folder(port: u16) -> Option<PathBuf> {
    let text = std::fs::read(SOCKETS).ok()?;
    folder_in(&String::from_utf8_lossy(&text), port)
}

/// `… Inode Path`: libpq looks for `.s.PGSQL.<port>` in the folder that it is told.
fn folder_in(text: &str, port: u16) -> Option<PathBuf> {
    let name = format!(".s.PGSQL.{port}");
    let paths = text.lines().filter_map(|line| line.find(" /").map(|at| Path::new(&line[at + 1..])));
    let mut sockets = paths.filter(|path| path.file_name().is_some_and(|other| other == name.as_str()));
    sockets.next()?.parent().map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_and_loopback_are_here() {
        for host in [
            None,
            Some("/run/postgresql"),
            Some("@abstract"),
            Some("localhost"),
            Some("127.0.0.2"),
            Some("::1"),
        ] {
            assert!(is_here(host), "{host:?}");
        }
        for host in ["db.example.org", "10.0.0.7", "localhost.example.org", "fe80::1"] {
            assert!(!is_here(Some(host)), "{host}");
        }
    }

    #[test]
    fn free_memory_is_what_the_kernel_calls_available() {
        assert_eq!(
            free_in("MemTotal:  8000 kB\nMemFree:  10 kB\nMemAvailable:    4096 kB\n"),
            Some(4096)
        );
        assert_eq!(free_in("MemTotal:  8000 kB\n"), None);
    }

    #[test]
    fn the_socket_with_the_port_is_found_among_all() {
        let text = "Num       RefCount Protocol Flags    Type St Inode Path\n\
                    0000000000000000: 00000002 00000000 00010000 0001 01 15741 /var/run/postgresql/.s.PGSQL.54321\n\
                    0000000000000000: 00000003 00000000 00000000 0001 03 15742\n\
                    0000000000000000: 00000002 00000000 00010000 0001 01 15743 @/abstract/.s.PGSQL.5433\n\
                    0000000000000000: 00000002 00000000 00010000 0001 01 15744 /run/my sockets/.s.PGSQL.5432\n";
        assert_eq!(folder_in(text, 5432).as_deref(), Some(Path::new("/run/my sockets")));
        assert_eq!(folder_in(text, 54321).as_deref(), Some(Path::new("/var/run/postgresql")));
        assert_eq!(folder_in(text, 5433), None);
    }
}
