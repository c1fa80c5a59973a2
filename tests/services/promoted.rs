//! An asynchronous standby that lacks the last second takes over from its primary (Z14): what was accepted ends, once, and
//! owners of before are known by the era.

use crate::roles::ALL;
use crate::town::Town;
use serde_json::json;
use std::process::Command;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};

/// A PostgreSQL of its own, which may be stopped, changed and lost.
pub(crate) struct Server {
    folder: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        let server = Self { folder: tempfile::tempdir().unwrap() };
        server.services("start");
        server
    }

    fn recorded(&self, file: &str, begins: &str) -> String {
        let text = std::fs::read_to_string(self.folder.path().join(file)).unwrap();
        text.lines().find_map(|line| line.strip_prefix(begins)).expect("it is recorded").to_owned()
    }

    /// URL of a database; behind another address, if one is given.
    pub(crate) fn url(&self, database: &str, address: Option<&str>) -> String {
        let url = self.recorded("env", "export ENDSTATE_TEST_POSTGRES=");
        let (user, rest) = url.rsplit_once('@').unwrap();
        format!("{user}@{}/{database}", address.unwrap_or(rest.split_once('/').unwrap().0))
    }

    /// Where the server or its standby listens.
    fn address(&self, name: &str) -> String {
        format!("127.0.0.1:{}", self.recorded("ports", &format!("{name} ")))
    }

    pub(crate) fn services(&self, command: &str) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services");
        let data = self.folder.path().to_str().unwrap();
        let done = Command::new(script).args([command, "--only", "postgres", "--data", data]).status().unwrap();
        assert!(done.success(), "scripts/services {command}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // All that the folder has: the standby, too.
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services");
        Command::new(script).args(["stop", "--data", self.folder.path().to_str().unwrap()]).status().ok();
    }
}

/// Leads to whichever server is the primary; returns its own address.
async fn proxy(primary: Arc<Mutex<String>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let to = primary.lock().unwrap().clone();
            tokio::spawn(async move {
                if let Ok(mut server) = TcpStream::connect(to).await {
                    tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn z14_what_was_accepted_ends_behind_a_promoted_standby_that_lacks_a_second() {
    let server = Arc::new(Server::start());
    let primary = Arc::new(Mutex::new(server.address("postgres")));
    let address = proxy(Arc::clone(&primary)).await;
    let mut town = Town::new();
    town.set("ENDSTATE_STORE_URL", &server.url("shop", Some(&address)));
    let process = town.serve("a", ALL, true).await;
    let start = async |number: String| {
        let body = json!({"number": number, "fail_at": ""});
        town.post(std::slice::from_ref(&process.url), "/v1/sagas/bench_saga", &body).await;
    };
    start("B-before".to_owned()).await;
    let era = "select string_agg(distinct (epoch >> 32)::text, ' ') from shard";
    assert_eq!(town.sql(era), "0");
    server.services("standby");
    let mut promoting = tokio::task::spawn_blocking({
        let server = Arc::clone(&server);
        move || server.services("promote")
    });
    let mut accepted = 0;
    loop {
        tokio::select! {
            done = &mut promoting => break done.unwrap(),
            () = start(format!("B-{accepted}")) => accepted += 1,
        }
    }
    *primary.lock().unwrap() = server.address("standby");
    // The call that was cut off may have been accepted as well: it is the same saga when it comes again.
    start(format!("B-{accepted}")).await;
    start("B-after".to_owned()).await;
    for number in (0..=accepted).map(|n| n.to_string()).chain(["before".to_owned(), "after".to_owned()]) {
        let url = format!("{}/v1/sagas/bench_saga/B-{number}", process.url);
        let view = town.until(&url, |view| view["phase"] == "ended").await;
        assert_eq!(view["outcome"], "completed", "{view:#}");
    }
    assert!(accepted > 0, "nothing was under way");
    // Those with nothing to do as well: what they had read may be lost with the commit of its reading.
    town.sql_until(era, |eras| eras == "1").await;
    let wrong = "select count(*) from saga s left join (select saga, sum(events) as events from event group by saga) e \
                 on e.saga = s.id where s.version <> coalesce(e.events, 0)";
    assert_eq!(town.sql(wrong), "0", "each saga is what its events have made it");
    assert_eq!(town.sql("select count(*) from dead_letter"), "0");
    assert!(process.terminate(), "{}", town.logs());
}
