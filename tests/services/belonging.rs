//! Two databases under one environment on one broker, and brokers that were replaced: both are refused before anything is
//! read (Z17).

use crate::town::Town;
use std::process::Command;

const ALL: &str = "gateway,orchestrator,participants,sweeper";

#[tokio::test]
async fn z17_a_second_database_under_one_environment_is_refused() {
    let mut town = Town::new();
    let first = town.serve("a", ALL, true).await;
    let theirs = town.sql("select value from system where name = 'store'");
    town.set("ENDSTATE_STORE_URL", &format!("{}_second", town.variable("ENDSTATE_STORE_URL")));
    let said = town.refused("b", ALL);
    assert!(said.contains("E4068") && said.contains(&theirs), "{said}");
    let bound = town.sql("select count(*) from system where name like 'kafka%'");
    assert_eq!(bound, "0", "who named these brokers by mistake may name the right ones");
    // Nobody has lost a shard to it.
    assert!(first.terminate());
    assert!(!town.logs_of("a").contains("revoked"), "{}", town.logs());
    let said = town.refused("b", "gateway");
    assert!(said.contains("E4068"), "also when nobody is there: {said}");
}

#[tokio::test]
async fn z17_another_broker_is_refused_until_somebody_says_that_it_is_the_one() {
    let town = Town::new();
    assert!(town.serve("a", ALL, true).await.terminate());
    let cluster = town.sql("select value from system where name = 'kafka_cluster'");
    town.sql("update system set value = 'the-one-before' where name = 'kafka_cluster'");
    let said = town.refused("a", ALL);
    assert!(said.contains("E4067") && said.contains("the-one-before") && said.contains(&cluster), "{said}");
    let adopt = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_endstate"));
        command.args(["broker", "adopt"]).args(arguments);
        for name in
            ["ENDSTATE_STORE_URL", "ENDSTATE_KAFKA_BROKERS", "ENDSTATE_ENVIRONMENT", "ENDSTATE_ENGINE_PARTITIONS"]
        {
            command.env(name, town.variable(name));
        }
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = adopt(&["somebody-elses"]);
    assert!(code == Some(1) && said.contains(&cluster), "{said}");
    let (code, said) = adopt(&[&cluster]);
    assert_eq!(code, Some(0), "{said}");
    let process = town.serve("a", ALL, true).await;
    let (code, said) = adopt(&[&cluster, "--from-the-beginning"]);
    assert!(code == Some(1) && said.contains("still use"), "positions are not moved under somebody: {said}");
    assert!(process.terminate());
    town.sql("update shard set position_progress = 7 * 1024");
    let (code, said) = adopt(&[&cluster, "--from-the-beginning"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(town.sql("select max(position_progress) from shard"), "0");
    assert!(town.serve("a", ALL, true).await.terminate());
}
