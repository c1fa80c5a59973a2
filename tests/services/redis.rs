//! What `endstate doctor` says of a real Redis, well set and badly.

use super::commands::{endstate, findings, server};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Output};

/// A connection that changes settings, and puts them back.
struct Redis {
    url: String,
    connection: TcpStream,
    before: Vec<(&'static str, &'static str)>,
}

impl Redis {
    fn new() -> Self {
        let url = std::env::var("ENDSTATE_TEST_REDIS").expect(
            "ENDSTATE_TEST_REDIS names no server; bring one along: scripts/services run -- cargo test --test services",
        );
        let (password, address) = url.trim_start_matches("redis://:").trim_end_matches('/').split_once('@').unwrap();
        let connection = TcpStream::connect(address).unwrap();
        let mut redis = Self { url: url.clone(), connection, before: Vec::new() };
        redis.say(&format!("AUTH {password}"));
        redis
    }

    fn say(&mut self, line: &str) {
        self.connection.write_all(format!("{line}\r\n").as_bytes()).unwrap();
        let mut answer = [0; 5];
        self.connection.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"+OK\r\n", "{line}");
    }

    fn set(&mut self, name: &'static str, value: &str, back: &'static str) {
        self.before.push((name, back));
        self.say(&format!("CONFIG SET {name} {value}"));
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        for (name, value) in std::mem::take(&mut self.before) {
            self.say(&format!("CONFIG SET {name} {value}"));
        }
    }
}

fn grade(output: &Output, check: &str) -> String {
    let found = findings(output);
    let of = found.iter().find(|(found, _)| found == check);
    of.unwrap_or_else(|| panic!("{check} is not among {found:?}")).1.clone()
}

#[test]
fn a_redis_is_examined_well_set_and_badly_set_and_when_it_does_not_answer() {
    let mut redis = Redis::new();
    let (server, _) = server().rsplit_once('/').map(|(server, name)| (server.to_owned(), name.to_owned())).unwrap();
    let store = format!("{server}/test_redis_{}", std::process::id());
    assert!(endstate(&store, &["migrate"]).status.success());
    let doctor = |url: &str, form: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_endstate"));
        program.arg("doctor").args(form).env("ENDSTATE_STORE_URL", &store).env("ENDSTATE_KAFKA_BROKERS", "");
        program.env("ENDSTATE_REDIS_URL", url).output().unwrap()
    };
    let url = redis.url.clone();
    let json = ["-o", "json"];

    let well = doctor(&url, &json);
    assert_eq!(well.status.code(), Some(1), "one Redis alone is something to mind: {well:?}");
    for check in ["redis.reach", "redis.version", "redis.clock", "redis.memory", "redis.disk"] {
        assert_eq!(grade(&well, check), "good", "{check}");
    }
    assert_eq!(grade(&well, "redis.replicas"), "mind");

    redis.set("maxmemory-policy", "allkeys-lru", "noeviction");
    let badly = doctor(&url, &json);
    assert_eq!((badly.status.code(), grade(&badly, "redis.memory").as_str()), (Some(2), "bad"));
    assert_eq!(grade(&badly, "redis.disk"), "good");
    redis.set("appendfsync", "no", "everysec");
    let people = doctor(&url, &[]);
    let said = String::from_utf8_lossy(&people.stdout).into_owned();
    assert!(
        said.contains("maxmemory-policy allkeys-lru") && said.contains("set maxmemory-policy noeviction"),
        "{said}"
    );
    assert!(said.contains("appendonly yes, appendfsync no"), "{said}");
    let password = url.trim_start_matches("redis://:").split_once('@').unwrap().0;
    assert!(!said.contains(password), "a secret is not shown");

    let nobody = doctor("redis://:s3cret@127.0.0.1:1/", &json);
    assert_eq!((nobody.status.code(), grade(&nobody, "redis.reach").as_str()), (Some(2), "bad"));
    let refused = doctor(&url.replace(password, "wrong"), &json);
    assert_eq!((refused.status.code(), grade(&refused, "redis.reach").as_str()), (Some(2), "bad"));
    assert!(
        !findings(&endstate(&store, &["doctor", "-o", "json"])).iter().any(|(check, _)| check.starts_with("redis"))
    );
}
