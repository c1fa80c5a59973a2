//! A way to the database that can be cut at the worst moment: when the server has the whole request, and the client has no
//! answer yet. It can also be led to another server, as a failover does.

use anyhow::Context as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// The protocol's `Sync`: what comes before it is complete, and commits.
const SYNC: &[u8] = &[b'S', 0, 0, 0, 4];

/// What a session's first messages say of it, and what they say when it is used for batches.
const NAME: &[u8] = b"application_name";
const WRITER: &[u8] = b"endstate write";

/// The proxy; its connections end with it.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    listening: JoinHandle<()>,
}

struct State {
    upstream: Mutex<String>,
    /// The next batch is cut.
    armed: AtomicBool,
    cut: AtomicU64,
}

impl Proxy {
    /// Listens on a free port, and passes on to `upstream`, `host:port`.
    pub(crate) async fn to(upstream: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no free loopback port")?;
        let address = listener.local_addr()?;
        let upstream = Mutex::new(upstream.to_owned());
        let state = Arc::new(State { upstream, armed: AtomicBool::new(false), cut: AtomicU64::new(0) });
        let listening = tokio::spawn(listen(listener, Arc::clone(&state)));
        Ok(Self { address, state, listening })
    }

    /// Cuts the next batch's socket.
    pub(crate) fn cut_next(&self) {
        self.state.armed.store(true, Ordering::Release);
    }

    /// Leads connections that are opened from now on to another server.
    pub(crate) fn lead_to(&self, upstream: &str) {
        upstream.clone_into(&mut self.state.upstream.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// How many were cut.
    pub(crate) fn cut_so_far(&self) -> u64 {
        self.state.cut.load(Ordering::Acquire)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(listener: TcpListener, state: Arc<State>) {
    let mut open = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        open.spawn(carry(client, Arc::clone(&state)));
        while open.try_join_next().is_some() {}
    }
}

/// One connection, until either side ends it or it is cut.
async fn carry(client: TcpStream, state: Arc<State>) {
    let upstream = state.upstream.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Ok(server) = TcpStream::connect(&upstream).await else { return };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let ((from_client, mut to_client), (mut from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = requests(from_client, to_server, &state) => {}
        _ = copy(&mut from_server, &mut to_client) => {}
    }
}

/// Passes requests on; returns when the connection must end.
async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State) {
    let mut buffer = vec![0; 64 << 10];
    // Before it names itself a session may have asked for TLS.
    let mut is_writer = None;
    let has = |part: &[u8], words: &[u8]| part.windows(words.len()).any(|window| window == words);
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let part = &buffer[..length];
        if is_writer.is_none() && has(part, NAME) {
            is_writer = Some(has(part, WRITER));
        }
        // Armed by one, taken by one.
        let cuts = is_writer == Some(true) && part.ends_with(SYNC) && state.armed.swap(false, Ordering::AcqRel);
        if to.write_all(part).await.is_err() {
            return;
        }
        if cuts {
            state.cut.fetch_add(1, Ordering::AcqRel);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn through(proxy: &Proxy, parts: &[&[u8]]) -> Vec<u8> {
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        let mut read = Vec::new();
        for part in parts {
            client.write_all(part).await.unwrap();
            let mut answer = vec![0; part.len()];
            match client.read_exact(&mut answer).await {
                Ok(_) => read.extend(answer),
                Err(_) => break,
            }
        }
        read
    }

    #[tokio::test]
    async fn a_socket_is_cut_behind_a_whole_batch_and_nothing_else_is() {
        let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = server.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = server.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = socket.split();
                    copy(&mut from, &mut to).await.ok();
                });
            }
        });
        let proxy = Proxy::to(&address).await.unwrap();
        let batch = [b"batch".as_slice(), SYNC].concat();
        let writer: &[u8] = b"application_name\0endstate write\0";
        let reader: &[u8] = b"application_name\0endstate read\0";
        assert_eq!(through(&proxy, &[b"tls?", writer, &batch]).await.len(), 4 + writer.len() + batch.len());
        proxy.cut_next();
        assert_eq!(through(&proxy, &[reader, &batch]).await.len(), reader.len() + batch.len(), "it only reads");
        assert_eq!(proxy.cut_so_far(), 0);
        assert_eq!(through(&proxy, &[b"tls?", writer, b"half", &batch]).await.len(), 8 + writer.len(), "no answer");
        assert_eq!(proxy.cut_so_far(), 1);
        assert_eq!(through(&proxy, &[writer, &batch]).await.len(), writer.len() + batch.len(), "only one was cut");
    }
}
