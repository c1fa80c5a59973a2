//! A process that is asked to stop.

use crate::program::program;
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// `endstate dev` as a process; killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    pub(crate) http: reqwest::Client,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Server {
    async fn start(unready_s: &str) -> Self {
        Self::with(&[("ENDSTATE_HTTP_UNREADY_S", unready_s)]).await
    }

    /// With these variables, once it listens.
    pub(crate) async fn with(variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("address");
        let arguments = ["dev", "--listen", "127.0.0.1:0", "--data", folder.path().to_str().unwrap(), "--address-file"];
        let mut command = program(&arguments);
        command.arg(&file).envs(variables.iter().copied()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let http = endstate_http::Trust::system().builder().build().unwrap();
        let mut server = Self { child, url: String::new(), http, _folder: folder };
        while !server.url.ends_with('\n') {
            server.alive().await;
            server.url = std::fs::read_to_string(&file).unwrap_or_default();
        }
        server.url.truncate(server.url.trim_end().len());
        server
    }

    /// A moment later it still runs.
    pub(crate) async fn alive(&mut self) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(self.child.try_wait().unwrap().is_none(), "the program has ended");
    }

    pub(crate) async fn text(&self, path: &str) -> String {
        self.http.get(format!("{}{path}", self.url)).send().await.unwrap().text().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path).await).unwrap_or_default()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) {
        let answer = self.http.post(format!("{}{path}", self.url)).json(body).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
    }

    async fn ready(&self) -> (u16, String) {
        let answer = self.http.get(format!("{}/readyz?verbose", self.url)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    fn terminate(&self) {
        let sent = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

#[tokio::test]
async fn a_server_that_is_asked_to_stop_is_not_ready_first_and_still_takes_calls() {
    let mut server = Server::start("600").await;
    while server.ready().await.0 != 200 {
        server.alive().await;
    }
    server.terminate();
    let unready = loop {
        let (status, checks) = server.ready().await;
        if status == 503 {
            break checks;
        }
        server.alive().await;
    };
    assert!(unready.contains("FAIL not draining") && unready.contains("ok   store"), "{unready}");
    // A load balancer that has not looked yet sends its calls, and they are served.
    let call = server.http.post(format!("{}/v1/sagas/bench_saga", server.url)).header("prefer", "wait=30");
    let taken = call.json(&json!({ "number": "B-1", "fail_at": "" })).send().await.unwrap();
    assert_eq!(taken.status(), 200);
    assert_eq!(taken.json::<Value>().await.unwrap()["outcome"], "completed");
    // Asked again, it closes at once, finishes, and ends well.
    server.terminate();
    let ended = tokio::task::spawn_blocking(move || server.child.wait().unwrap().success()).await.unwrap();
    assert!(ended);
}

#[tokio::test]
async fn without_a_wait_one_signal_is_enough() {
    let mut server = Server::start("0").await;
    while server.ready().await.0 != 200 {
        server.alive().await;
    }
    server.terminate();
    let ended = tokio::task::spawn_blocking(move || server.child.wait().unwrap().success()).await.unwrap();
    assert!(ended);
}
