//! A process whose database is away.

use crate::program::program;
use std::net::TcpListener;
use std::process::{Command, Stdio};

#[tokio::test]
async fn a_process_that_waits_for_its_database_is_alive_not_ready_and_ends_when_it_is_asked_to() {
    let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (nobody, listen, folder) = (port(), format!("127.0.0.1:{}", port()), tempfile::tempdir().unwrap());
    let mut child = program(&["serve", "--listen", &listen, "--data", folder.path().to_str().unwrap()])
        .env("ENDSTATE_STORE_URL", format!("postgres://user:secret@127.0.0.1:{nobody}/nothing"))
        .env("ENDSTATE_KAFKA_BROKERS", format!("127.0.0.1:{nobody}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let http = endstate_http::Trust::system().builder().build().unwrap();
    let get = async |path: &str| {
        let answer = http.get(format!("http://{listen}{path}")).send().await;
        answer.ok().map(|answer| answer.status().as_u16())
    };
    while get("/livez").await != Some(200) {
        assert!(child.try_wait().unwrap().is_none(), "it waits");
        tokio::task::yield_now().await;
    }
    assert_eq!((get("/readyz").await, get("/startupz").await), (Some(503), Some(503)));
    let sent = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert!(ended.success(), "it was asked to end, and did: {ended}");
    assert_eq!(get("/livez").await, None);
}
