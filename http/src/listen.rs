//! Addresses on which calls are taken.

use std::io;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpSocket};

/// Connections that wait to be taken, at most (the system may allow fewer). The first second of a sale brings thousands; whoever
/// finds no place tries again a second later, or three, without a word to anybody.
pub const BACKLOG: u32 = 4_096;

/// Listens on `address`; an address that a process left a moment ago is free.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Elsewhere it would allow a second listener.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;
    use std::time::Duration;

    #[tokio::test]
    async fn a_crowd_is_connected_before_anybody_takes_it() {
        let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
        let allowed: usize = allowed.and_then(|text| text.trim().parse().ok()).unwrap_or(128);
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        // Beyond the backlog a connection is never completed; well below it each is, at once.
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_secs(20)).unwrap();
        let crowd: Vec<TcpStream> = (0..allowed.min(400)).map(connect).collect();
        assert_eq!(crowd.len(), allowed.min(400));
        let taken = listen(address).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }
}
