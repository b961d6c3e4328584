//! Which version of Synapse runs, for whoever must install one before a restore.
//!
//! No file of the homeserver and no table tells it: the database knows versions of its schema only, and many releases share
//! one. So the running Synapse is asked, on the loopback, at the listeners that its configuration names. In containers such a
//! port may be another Synapse's: an answer counts only with this homeserver's name in it. One that is stopped, slow or
//! behind a socket is not known, and that is no problem of a backup.

use std::time::Duration;

use tokio::time::timeout;

use super::Homeserver;
use super::http;

/// For all listeners together: on the loopback a Synapse that can answer does so at once.
const WAIT: Duration = Duration::from_secs(2);
/// The main process has one or two.
const LISTENERS_MAX: usize = 4;
/// The keys and the name of a server, signed.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// `1.163.0`, `1.164.0rc1`.
const VERSION_CHARS_MAX: usize = 32;

/// The version of the Synapse that runs as this homeserver, where it can be asked.
pub async fn running(homeserver: &Homeserver) -> Option<String> {
    let ask = async {
        for port in homeserver.http_ports.iter().take(LISTENERS_MAX) {
            if let Some(version) = at(*port, &homeserver.server_name).await {
                return Some(version);
            }
        }
        None
    };
    timeout(WAIT, ask).await.ok().flatten()
}

/// Every answer of Synapse has its version in a header; that of the key resource says whose it is as well.
async fn at(port: u16, server_name: &str) -> Option<String> {
    let answer = http::get(port, "/_matrix/key/v2/server", None, ANSWER_BYTES_MAX).await.ok()?;
    if answer.json()["server_name"] != server_name {
        return None;
    }
    // What follows a space is of a working copy: `Synapse/1.163.0 (b=develop,0123abc)`.
    let version = answer.server?.strip_prefix("Synapse/")?.split(' ').next()?.to_owned();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '~');
    let is_version =
        version.starts_with(|c: char| c.is_ascii_digit()) && version.len() <= VERSION_CHARS_MAX && version.chars().all(is_plain);
    is_version.then_some(version)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// One answer on a port of its own.
    async fn asked(head: &str, body: &str) -> Option<String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = format!("HTTP/1.0 200 OK\r\n{head}\r\n\r\n{body}");
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /_matrix/key/v2/server HTTP/1.0\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        tokio::join!(at(port, "example.org"), serve).0
    }

    #[tokio::test]
    async fn the_running_synapse_tells_its_version() {
        let own = r#"{"server_name": "example.org", "verify_keys": {}}"#;
        for (server, body, wanted) in [
            ("Server: Synapse/1.163.0", own, Some("1.163.0")),
            ("server:Synapse/1.164.0rc1", own, Some("1.164.0rc1")),
            ("Server: Synapse/1.163.0 (b=develop,0123abc)", own, Some("1.163.0")),
            ("Server: Synapse/1.163.0", r#"{"server_name": "other.org"}"#, None),
            ("Server: Synapse/1.163.0", "no JSON", None),
            ("Server: nginx/1.22", own, None),
            ("Server: Synapse/", own, None),
            ("Server: Synapse/1.\u{1b}[31m", own, None),
            ("Content-Type: application/json", own, None),
        ] {
            assert_eq!(asked(server, body).await.as_deref(), wanted, "{server} {body}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_not_known() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        assert_eq!(at(port, "example.org").await, None);
    }
}
