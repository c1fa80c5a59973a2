//! The Kafka tutorial's participants, one in Python and one in Java: each keeps the promises of every participant, seen
//! from outside, and wraps each gift once although it is killed in the middle.

use crate::strangers::{ended, open_stock, start};
use crate::town::{PATIENCE, Process, Town};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const ORDERS: usize = 20;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// What `scripts/clients` prints; it installs what is missing.
fn clients(language: &str) -> String {
    let prepared = Command::new(path("scripts/clients")).arg(language).output().unwrap();
    assert!(prepared.status.success(), "{}", String::from_utf8_lossy(&prepared.stderr));
    String::from_utf8(prepared.stdout).unwrap().trim().to_owned()
}

/// A participant as a process; killed when it is dropped.
struct GiftWrap(Child);

impl GiftWrap {
    /// Starts it, and waits until it listens.
    fn start(language: &str, arguments: &[&str]) -> Self {
        let mut command = match language {
            "python" => {
                let mut command = Command::new(clients("python"));
                command.arg(path("docs/tutorial/kafka/gift_wrap.py"));
                command
            }
            _ => {
                let mut command = Command::new("java");
                let folder = clients("java");
                command.args(["-cp", &folder]).arg(path("docs/tutorial/kafka/GiftWrap.java"));
                command
            }
        };
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("gift_wrap listens") {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "{language}: it ended before it listened");
        }
        Self(child)
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for GiftWrap {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn endstate(town: &Town, server: &Process, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_endstate"));
    command.args(arguments).current_dir(path(".")).env("ENDSTATE_SERVER", &server.url);
    for name in ["ENDSTATE_ENVIRONMENT", "ENDSTATE_KAFKA_BROKERS"] {
        command.env(name, town.variable(name));
    }
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

async fn walk(language: &str) {
    let town = Town::new();
    let server = town.serve("a", "gateway,orchestrator,participants,sweeper", true).await;
    let topic = format!("{}.gift_wrap.commands", town.variable("ENDSTATE_ENVIRONMENT"));
    let folder = tempfile::tempdir().unwrap();
    let memory = folder.path().join("memory");
    let brokers = town.variable("ENDSTATE_KAFKA_BROKERS").to_owned();
    let arguments = [brokers.as_str(), &topic, memory.to_str().unwrap()];
    let gift_wrap = GiftWrap::start(language, &arguments);

    let catalogue = "docs/tutorial/kafka/catalogue/gift_wrap.yaml";
    let refuse = r#"wrap={"paper":"none"}"#;
    let verify = [
        "participant",
        "verify",
        "gift_wrap",
        "--catalogue",
        catalogue,
        "--refuse",
        refuse,
        "--patience",
        "60",
        "-o",
        "json",
    ];
    let (good, said) = endstate(&town, &server, &verify);
    assert!(good, "{said}");
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&report["ok"], &report["skipped"]), (&json!(11), &json!(0)), "{said}");

    let (good, said) = endstate(&town, &server, &["saga", "load", "docs/tutorial/kafka/gift_order.yaml", "--activate"]);
    assert!(good, "{said}");
    open_stock(&town, &server).await;
    let order = |number: usize| {
        let (town, server) = (&town, &server);
        async move { start(town, server, &format!("G-{number}"), "gold").await }
    };
    join_all((0..ORDERS / 2).map(order)).await;
    // SIGKILL in the middle, and the same program again with what it remembers.
    gift_wrap.kill();
    join_all((ORDERS / 2..ORDERS).map(order)).await;
    let _gift_wrap = GiftWrap::start(language, &arguments);
    let mut tags = std::collections::BTreeSet::new();
    let all = async {
        for number in 0..ORDERS {
            let saga = ended(&town, &server, &format!("G-{number}")).await;
            assert_eq!(saga["outcome"], "completed", "{saga:#}");
            tags.insert(saga["view"]["tag"].as_str().unwrap().to_owned());
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("all orders end");
    assert_eq!(tags.len(), ORDERS, "a gift of its own for each order: {tags:?}");
    assert!(server.terminate(), "{}", town.logs());
}

#[tokio::test]
async fn the_tutorials_participant_in_python_keeps_its_promises_over_kafka() {
    walk("python").await;
}

#[tokio::test]
async fn the_tutorials_participant_in_java_keeps_its_promises_over_kafka() {
    walk("java").await;
}
