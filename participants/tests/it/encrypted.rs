//! Participants behind https: one whose certificate comes from an authority that the configuration names, and the same
//! one met by somebody who does not know that authority.
//!
//! `tls/` holds the authority, and a certificate of it for 127.0.0.1 and localhost; both are valid for a century, and good
//! for nothing else.

use crate::world::*;
use axum::Router;
use axum::extract::Json as Body;
use axum::routing::post;
use endstate_events::*;
use endstate_http::Trust;
use endstate_participants::caller::Outside;
use endstate_participants::outside::HttpParticipant;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/tls").join(name)
}

/// A listener whose connections are encrypted; those that do not get so far are dropped.
struct Encrypted(TcpListener, TlsAcceptor);

impl axum::serve::Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.0.accept().await else { continue };
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// A participant that wraps whatever it is told to; returns its port.
async fn gift_wrap() -> u16 {
    let chain = CertificateDer::pem_file_iter(file("server.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let wrap = |Body(command): Body<Json>| async move { Body(json!({ "wrapped": command["with"]["paper"] })) };
    let listener = Encrypted(listener, TlsAcceptor::from(Arc::new(config)));
    tokio::spawn(axum::serve(listener, Router::new().route("/wrap", post(wrap))).into_future());
    port
}

fn wrap() -> Command {
    tell(1, "gift_wrap.wrap", "k", json!({ "paper": "gold" }))
}

#[tokio::test]
async fn a_participant_behind_https_is_called_when_its_authority_is_named() {
    let port = gift_wrap().await;
    let trust = Trust::with(&file("ca.pem")).unwrap();
    for host in ["127.0.0.1", "localhost"] {
        let party = HttpParticipant::new(&format!("https://{host}:{port}/"), Duration::from_secs(5), &trust).unwrap();
        let done = party.make(&wrap(), Lane::Live).await;
        assert_eq!(done, Verdict::Done { data: json!({ "wrapped": "gold" }) }, "{host}");
    }
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused_and_the_call_is_unknown() {
    let port = gift_wrap().await;
    let url = format!("https://127.0.0.1:{port}/");
    let party = HttpParticipant::new(&url, Duration::from_secs(5), &Trust::system()).unwrap();
    for verdict in [party.make(&wrap(), Lane::Live).await, party.ask(&wrap(), Lane::Live).await] {
        let Verdict::Unknown { reason, .. } = verdict else { panic!("nobody vouched for anything: {verdict:?}") };
        for words in ["E5015", "UnknownIssuer", "tls.ca_file"] {
            assert!(reason.contains(words), "{reason}");
        }
    }
}
