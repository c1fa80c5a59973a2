//! Brokers that speak TLS and ask who is there. Only a program that was built with `kafka-tls` can: run these with
//! `scripts/services run -- cargo test --features kafka-tls --test services secure`, which compiles OpenSSL first.

use crate::roles::ALL;
use crate::town::{Town, service};

/// A town whose messages go through the listener that is encrypted; its client's settings are those of the services, changed
/// by `change`.
fn town(change: impl Fn(&str) -> String) -> (Town, tempfile::NamedTempFile) {
    let mut town = Town::on(service("ENDSTATE_TEST_KAFKA_SECURE"));
    let client = std::fs::read_to_string(service("ENDSTATE_TEST_KAFKA_CLIENT")).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), change(&client)).unwrap();
    town.set("ENDSTATE_KAFKA_CLIENT_FILE", file.path().to_str().unwrap());
    (town, file)
}

#[cfg(feature = "kafka-tls")]
mod built_for_it {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn a_saga_ends_over_brokers_that_speak_tls_and_ask_for_a_password() {
        let (town, _client) = town(str::to_owned);
        let process = town.serve("a", ALL, true).await;
        let server = [town.survivor()];
        let saga = town.post(&server, "/v1/sagas/bench_saga", &json!({ "number": "S-1", "fail_at": "" })).await;
        assert_eq!(saga["outcome"], "completed", "{saga:#}\n{}", town.logs());
        assert!(process.terminate(), "it ends well\n{}", town.logs());
    }

    #[tokio::test]
    async fn a_wrong_password_and_an_unknown_certificate_are_told() {
        let wrong_password = |client: &str| client.replace("sasl.password = ", "sasl.password = not-");
        let other_authority = |client: &str| {
            client.lines().filter(|line| !line.starts_with("ssl.ca.location")).collect::<Vec<_>>().join("\n")
        };
        for (change, told) in
            [(&wrong_password as &dyn Fn(&str) -> String, "Authentication failed"), (&other_authority, "certificate")]
        {
            let (town, _client) = town(change);
            // It waits, as for brokers that are away: a password can be changed at the brokers, too.
            let (process, _) = town.start("a", ALL, false);
            town.logs_until("a", told).await;
            drop(process);
        }
    }
}

#[cfg(not(feature = "kafka-tls"))]
#[test]
fn a_program_that_was_not_built_for_it_says_so() {
    let (town, _client) = town(str::to_owned);
    let said = town.refused("a", ALL);
    assert!(said.contains("kafka-tls"), "{said}");
}
