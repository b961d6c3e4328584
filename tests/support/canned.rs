//! An HTTP server that gives prepared answers: for what a real store says only on a bad day.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// One request as it came: its head, line by line in lower case, and its body.
#[derive(Debug, Clone)]
pub struct Asked {
    /// `put /bucket/key?x-id=putobject http/1.1`
    pub line: String,
    /// `name: value`, in lower case.
    pub headers: Vec<String>,
    /// As many bytes as `content-length` says.
    pub body: Vec<u8>,
}

/// A running server; it ends when it is dropped.
pub struct Canned {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _tasks: JoinSet<()>,
}

impl Canned {
    /// Answer each request with what `answer` makes of it: a whole HTTP answer, of which status line and headers
    /// come from [`http`].
    pub async fn start(answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (asked, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let mut tasks = JoinSet::new();
        let log = Arc::clone(&asked);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                connections.spawn(async move { while_connected(stream, &log, answer.as_ref()).await });
            }
        });
        Self {
            address,
            asked,
            _tasks: tasks,
        }
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked until now.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// An answer with a Date.
pub fn http(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!(
        "HTTP/1.1 {status} Status\r\nDate: Mon, 23 Nov 2026 10:00:00 GMT\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        text.extend([*name, ": ", *value, "\r\n"]);
    }
    format!("{text}\r\n{body}").into_bytes()
}

/// S3's way to say no.
pub fn refusal(status: u16, code: &str, message: &str) -> Vec<u8> {
    let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    http(status, &[("Content-Type", "application/xml")], &body)
}

async fn while_connected(stream: TcpStream, log: &Mutex<Vec<Asked>>, answer: &(impl Fn(&Asked) -> Vec<u8> + Sync)) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let line = line(&mut stream).await?;
        let mut headers = Vec::new();
        loop {
            match self::line(&mut stream).await? {
                empty if empty.is_empty() => break,
                header => headers.push(header),
            }
        }
        let length = headers
            .iter()
            .find_map(|header| header.strip_prefix("content-length: ")?.parse().ok())
            .unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let asked = Asked { line, headers, body };
        let bytes = answer(&asked);
        let is_head = asked.line.starts_with("head ");
        log.lock().unwrap().push(asked);
        let end = bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .map_or(bytes.len(), |at| at + 4);
        stream.write_all(if is_head { &bytes[..end] } else { &bytes }).await.ok()?;
    }
}

async fn line(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    let read = stream.read_line(&mut line).await.ok()?;
    (read > 0).then(|| line.trim_end().to_ascii_lowercase())
}
