//! A TCP proxy that spoils connections: slow, cut in the middle of a request, cut after it was delivered, or down.
//!
//! It looks at plain HTTP only as far as finding a word in what the client sends, so a fault hits the request it is meant for.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What happens to the request in which a word is found.
#[derive(Debug, Clone, Copy)]
pub enum Spoil {
    /// The connection ends after so many bytes of the request.
    Request(usize),
    /// One bit of the request changes, so far behind its beginning.
    Flip(usize),
    /// The request is delivered and carried out, and its answer is lost.
    Answer,
    /// So many bytes of the answer come through.
    AnswerAfter(usize),
}

#[derive(Default)]
struct Plan {
    faults: Vec<(String, Spoil)>,
    latency: Duration,
    spoiled: usize,
}

/// A running proxy; it ends when it is dropped.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    target: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    tasks: JoinSet<()>,
}

impl Proxy {
    /// In front of a server.
    pub async fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let mut proxy = Self {
            address,
            target,
            plan: Arc::default(),
            tasks: JoinSet::new(),
        };
        proxy.serve(listener);
        proxy
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Spoil the next request in whose first bytes this word is; once.
    pub fn spoil(&self, word: &str, how: Spoil) {
        self.plan.lock().unwrap().faults.push((word.to_owned(), how));
    }

    /// Every piece of every answer comes later.
    pub fn delay(&self, latency: Duration) {
        self.plan.lock().unwrap().latency = latency;
    }

    /// How many requests were spoiled.
    pub fn spoiled(&self) -> usize {
        self.plan.lock().unwrap().spoiled
    }

    /// End all connections and refuse new ones.
    pub async fn down(&mut self) {
        self.tasks.shutdown().await;
    }

    /// Listen again, at the same address.
    pub async fn up(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the same port again");
        self.serve(listener);
    }

    fn serve(&mut self, listener: TcpListener) {
        let (target, plan) = (self.target, Arc::clone(&self.plan));
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(connection(client, target, Arc::clone(&plan)));
                while connections.try_join_next().is_some() {}
            }
        });
    }
}

async fn connection(mut client: TcpStream, target: SocketAddr, plan: Arc<Mutex<Plan>>) {
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    let (mut from_client, mut from_server) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut spoil = None;
    let mut passed = 0;
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(read @ 1..) = read else { return };
                let piece = &mut from_client[..read];
                if spoil.is_none() {
                    spoil = take(&plan, piece);
                }
                if let Some(Spoil::Flip(at)) = spoil {
                    if let Some(byte) = at.checked_sub(passed).and_then(|at| piece.get_mut(at)) {
                        *byte ^= 1;
                        (spoil, passed) = (None, 0);
                    } else {
                        passed += read;
                    }
                }
                if let Some(Spoil::Request(limit)) = spoil {
                    passed += read;
                    if passed > limit {
                        let _ = server.write_all(&piece[..read - (passed - limit)]).await;
                        return;
                    }
                }
                if server.write_all(piece).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(read @ 1..) = read else { return };
                match spoil {
                    // It answers, so it has done it.
                    Some(Spoil::Answer) => return,
                    Some(Spoil::AnswerAfter(limit)) => {
                        passed += read;
                        if passed > limit {
                            let _ = client.write_all(&from_server[..read - (passed - limit)]).await;
                            return;
                        }
                    }
                    _ => {}
                }
                let latency = plan.lock().unwrap().latency;
                tokio::time::sleep(latency).await;
                if client.write_all(&from_server[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn take(plan: &Mutex<Plan>, piece: &[u8]) -> Option<Spoil> {
    let mut plan = plan.lock().unwrap();
    let at = plan
        .faults
        .iter()
        .position(|(word, _)| piece.windows(word.len()).any(|window| window == word.as_bytes()))?;
    plan.spoiled += 1;
    Some(plan.faults.remove(at).1)
}
