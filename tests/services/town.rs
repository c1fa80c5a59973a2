//! A small town: processes of the program on a database and an environment of its own, and a payment provider beside them.

use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing passes or fails by it but a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

const SECRET: &str = "provider-secret";

pub(crate) fn service(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} names no server; bring one along: scripts/services run -- cargo test --test services")
    })
}

/// A port that nobody has now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A process that is killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) url: String,
}

impl Process {
    fn start(arguments: &[String], variables: &[(&str, String)], url: String, log: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_endstate"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ENDSTATE_")) {
            command.env_remove(name);
        }
        let log = std::fs::File::create(log).unwrap();
        command.args(arguments).envs(variables.iter().cloned()).stdout(Stdio::null()).stderr(log);
        Self { child: command.spawn().unwrap(), url }
    }

    /// SIGKILL, which no process sees coming.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM.
    pub(crate) fn ask_to_stop(&self) {
        self.signal("TERM");
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(name, &self.child.id().to_string());
    }

    /// SIGTERM; whether it ended well.
    pub(crate) fn terminate(mut self) -> bool {
        self.ask_to_stop();
        self.child.wait().unwrap().success()
    }

    fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Where the processes live.
pub(crate) struct Town {
    folder: tempfile::TempDir,
    provider: Process,
    variables: Vec<(&'static str, String)>,
    /// Of the process that takes the provider's callbacks.
    survivor_port: u16,
    pub(crate) http: reqwest::Client,
}

impl Town {
    pub(crate) fn new() -> Self {
        Self::on(service("ENDSTATE_TEST_KAFKA"))
    }

    /// One whose messages go through these brokers.
    pub(crate) fn on(brokers: String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("t{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let (server, _) =
            service("ENDSTATE_TEST_POSTGRES").rsplit_once('/').map(|(s, d)| (s.to_owned(), d.len())).unwrap();
        let (provider_port, survivor_port) = (free_port(), free_port());
        let arguments = [
            "provider".to_owned(),
            format!("--listen=127.0.0.1:{provider_port}"),
            format!("--callback-url=http://127.0.0.1:{survivor_port}/v1/callbacks/simpay"),
            format!("--file={}", folder.path().join("provider.ndjson").display()),
            "--deliveries=3".to_owned(),
        ];
        let secret = ("ENDSTATE_PAYMENT_SECRET", SECRET.to_owned());
        let url = format!("http://127.0.0.1:{provider_port}");
        let provider =
            Process::start(&arguments, std::slice::from_ref(&secret), url.clone(), &folder.path().join("provider.log"));
        let variables = vec![
            secret,
            ("ENDSTATE_PAYMENT_URL", url),
            ("ENDSTATE_PAYMENT_KIND", "simulated".to_owned()),
            ("ENDSTATE_ENVIRONMENT", name.clone()),
            ("ENDSTATE_STORE_URL", format!("{server}/test_{name}")),
            ("ENDSTATE_ENGINE_PARTITIONS", "8".to_owned()),
            ("ENDSTATE_STORE_CONNECTIONS", "6".to_owned()),
            ("ENDSTATE_KAFKA_BROKERS", brokers),
            ("ENDSTATE_KAFKA_SESSION_MS", "6000".to_owned()),
        ];
        let http = endstate_http::Trust::system().builder().timeout(Duration::from_secs(30)).build().unwrap();
        Self { folder, provider, variables, survivor_port, http }
    }

    /// With one more setting for the processes that are started from now on.
    pub(crate) fn set(&mut self, name: &'static str, value: &str) {
        self.variables.push((name, value.to_owned()));
    }

    /// Starts a process with these roles, and waits until it is ready. `survivor`: the one that takes callbacks.
    pub(crate) async fn serve(&self, name: &str, roles: &str, survivor: bool) -> Process {
        let (mut process, log) = self.start(name, roles, survivor);
        let ready = async {
            loop {
                let answer = self.http.get(format!("{}/readyz", process.url)).send().await;
                if answer.is_ok_and(|answer| answer.status() == 200) {
                    return;
                }
                assert!(process.is_alive(), "{}", std::fs::read_to_string(&log).unwrap());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.expect("the process is ready");
        process
    }

    /// Starts a process, and does not wait for it.
    pub(crate) fn start(&self, name: &str, roles: &str, survivor: bool) -> (Process, PathBuf) {
        let port = if survivor { self.survivor_port } else { free_port() };
        let arguments = [
            "serve".to_owned(),
            format!("--roles={roles}"),
            format!("--listen=127.0.0.1:{port}"),
            format!("--data={}", self.folder.path().join(name).display()),
        ];
        let log = self.folder.path().join(format!("{name}.log"));
        (Process::start(&arguments, &self.variables, format!("http://127.0.0.1:{port}"), &log), log)
    }

    /// Starts a process that cannot start, and returns what it said when it had ended.
    pub(crate) fn refused(&self, name: &str, roles: &str) -> String {
        let (mut process, log) = self.start(name, roles, false);
        let started = Instant::now();
        while process.is_alive() {
            assert!(started.elapsed() < PATIENCE, "it goes on: {}", std::fs::read_to_string(&log).unwrap());
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(!process.child.wait().unwrap().success());
        std::fs::read_to_string(log).unwrap()
    }

    /// Where the process is that takes callbacks.
    pub(crate) fn survivor(&self) -> String {
        format!("http://127.0.0.1:{}", self.survivor_port)
    }

    /// Posts to the first server that answers well; a start or a payment may come twice for that.
    pub(crate) async fn post(&self, servers: &[String], path: &str, body: &Value) -> Value {
        for server in servers.iter().cycle() {
            let call = self.http.post(format!("{server}{path}")).header("prefer", "wait=10").json(body);
            match call.send().await {
                Ok(answer) if answer.status().is_success() => return answer.json().await.unwrap_or_default(),
                Ok(answer) if answer.status().is_client_error() => {
                    panic!("{path}: {} {}", answer.status(), answer.text().await.unwrap())
                }
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        unreachable!("servers are asked for ever")
    }

    /// Reads until it is `good`.
    pub(crate) async fn until(&self, url: &str, good: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let reading = async {
            loop {
                if let Ok(answer) = self.http.get(url).send().await {
                    last = answer.json().await.unwrap_or_default();
                    if good(&last) {
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let read = tokio::time::timeout(PATIENCE, reading).await;
        assert!(read.is_ok(), "{url}: {last:#}");
        last
    }

    /// A value of the processes' configuration.
    pub(crate) fn variable(&self, name: &str) -> &str {
        let found = self.variables.iter().rfind(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_str()).expect("it is set")
    }

    /// What the processes' database answers to a statement, unaligned: `|` between columns, a line for each row.
    pub(crate) fn sql(&self, statement: &str) -> String {
        let arguments = ["-qAtX", "-v", "ON_ERROR_STOP=1", "-c", statement, self.variable("ENDSTATE_STORE_URL")];
        let output = Command::new("psql").args(arguments).output().expect("psql comes with PostgreSQL");
        assert!(output.status.success(), "{statement}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Asks until the answer is `good`.
    pub(crate) async fn sql_until(&self, statement: &str, good: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let asking = async {
            loop {
                last = self.sql(statement);
                if good(&last) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let asked = tokio::time::timeout(PATIENCE, asking).await;
        assert!(asked.is_ok(), "{statement}: {last}\n{}", self.logs());
        last
    }

    /// A session that has begun a transaction with this statement, and is left open.
    pub(crate) fn transaction(&self, statement: &str) -> Transaction {
        let mut command = Command::new("psql");
        command.args(["-qAtX", "-v", "ON_ERROR_STOP=1", self.variable("ENDSTATE_STORE_URL")]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("psql comes with PostgreSQL");
        let mut transaction = Transaction(child);
        let stdin = transaction.0.stdin.as_mut().unwrap();
        writeln!(stdin, "begin;\n{statement};\nselect 'begun';").unwrap();
        let lines = BufReader::new(transaction.0.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "begun"), "{statement}");
        transaction
    }

    pub(crate) fn pay_url(&self, view: &Value) -> Option<String> {
        let url = view["view"]["pay_url"].as_str()?;
        assert!(url.starts_with(&self.provider.url), "{url}");
        Some(url.to_owned())
    }

    /// Waits until a process has said something.
    pub(crate) async fn logs_until(&self, name: &str, words: &str) {
        let log = self.folder.path().join(format!("{name}.log"));
        let said = async {
            while !std::fs::read_to_string(&log).unwrap().contains(words) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, said).await.unwrap_or_else(|_| panic!("never said: {words}\n{}", self.logs()));
    }

    /// What one process said.
    pub(crate) fn logs_of(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap()
    }

    /// What the processes said, for a test that failed.
    pub(crate) fn logs(&self) -> String {
        let read = |name: &str| {
            let log = std::fs::read_to_string(self.folder.path().join(format!("{name}.log"))).ok()?;
            Some(format!("--- {name}\n{log}\n"))
        };
        ["a", "b", "gateway", "engine"].into_iter().filter_map(read).collect()
    }
}

/// An open transaction of somebody's, rolled back when it is dropped.
pub(crate) struct Transaction(Child);

impl Drop for Transaction {
    fn drop(&mut self) {
        // The server rolls back when the input of the session ends.
        self.0.stdin.take();
        self.0.wait().ok();
    }
}

/// A broker of its own, which may be killed.
pub(crate) struct Broker {
    folder: tempfile::TempDir,
}

impl Broker {
    pub(crate) fn start() -> Self {
        let broker = Self { folder: tempfile::tempdir().unwrap() };
        broker.services("start");
        broker
    }

    /// Its address, which stays.
    pub(crate) fn address(&self) -> String {
        let settings = std::fs::read_to_string(self.folder.path().join("env")).unwrap();
        let line = settings.lines().find_map(|line| line.strip_prefix("export ENDSTATE_TEST_KAFKA=")).unwrap();
        line.to_owned()
    }

    /// SIGKILL, which no process sees coming.
    pub(crate) fn kill(&self) {
        let recorded = std::fs::read_to_string(self.folder.path().join("kafka.pid")).unwrap();
        signal("KILL", recorded.split(' ').next().unwrap());
    }

    /// Starts it again, over the data that it left.
    pub(crate) fn revive(&self) {
        let address = self.address();
        self.services("start");
        assert_eq!(self.address(), address);
    }

    fn services(&self, command: &str) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services");
        let data = self.folder.path().to_str().unwrap();
        let done = Command::new(script).args([command, "--only", "kafka", "--data", data]).status().unwrap();
        assert!(done.success(), "scripts/services {command}");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.services("stop");
    }
}

/// Sends a process a signal, by the shell's own `kill`: not every machine has a program of that name.
fn signal(name: &str, process: &str) {
    let sent = Command::new("sh").args(["-c", "kill -\"$0\" \"$1\"", name, process]).status().unwrap();
    assert!(sent.success());
}
