//! Asking a Synapse on the loopback: one GET a connection, in the oldest HTTP, whose answers end where the connection ends.
//!
//! No redirects, no proxies, no names to look up: it speaks to 127.0.0.1 alone.

use std::io::{Error, ErrorKind, Result};
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const WAIT: Duration = Duration::from_mins(1);

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its `Server` header: which program answered, in which version.
    pub server: Option<String>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// GET `path` from 127.0.0.1:`port`, perhaps with an access token; a body over `bytes_max` is an error.
pub async fn get(port: u16, path: &str, token: Option<&str>, bytes_max: usize) -> Result<Answer> {
    let asked = timeout(WAIT, ask(port, path, token, bytes_max)).await;
    asked.unwrap_or_else(|_| Err(Error::new(ErrorKind::TimedOut, "no answer within a minute")))
}

async fn ask(port: u16, path: &str, token: Option<&str>, bytes_max: usize) -> Result<Answer> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let authorization = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n{authorization}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    let limit = bytes_max as u64 + (64 << 10);
    stream.take(limit).read_to_end(&mut bytes).await?;
    let broken = |what: &str| Error::new(ErrorKind::InvalidData, what.to_owned());
    let end = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .ok_or_else(|| broken("no HTTP answer"))?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let server = head.lines().skip(1).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("server").then(|| value.trim().to_owned())
    });
    let body = bytes.split_off(end + 4);
    if body.len() > bytes_max {
        return Err(broken("the answer is too long"));
    }
    Ok(Answer {
        status: status.ok_or_else(|| broken("no HTTP status"))?,
        server,
        body,
    })
}
