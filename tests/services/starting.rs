//! A process that starts while its database is away.

use crate::roles::ALL;
use crate::town::{PATIENCE, Town};
use std::net::TcpListener;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::task::JoinSet;

/// A server that answers on this port, too, as long as this is kept.
async fn forward(port: u16, server: (String, u16)) -> JoinSet<()> {
    let there = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let mut forwarding = JoinSet::new();
    forwarding.spawn(async move {
        let mut clients = JoinSet::new();
        while let Ok((mut client, _)) = there.accept().await {
            let server = server.clone();
            clients.spawn(async move {
                let mut server = tokio::net::TcpStream::connect(server).await.unwrap();
                tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
            });
        }
    });
    forwarding
}

/// A port on which nobody answers yet.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_process_that_starts_before_its_database_is_alive_and_gets_ready_once_it_answers() {
    let mut town = Town::new();
    let url = reqwest::Url::parse(town.variable("ENDSTATE_STORE_URL")).unwrap();
    let server = (url.host_str().unwrap().to_owned(), url.port().unwrap());
    let port = port();
    let mut through = url.clone();
    through.set_port(Some(port)).unwrap();
    town.set("ENDSTATE_STORE_URL", through.as_str());
    let address = town.survivor();
    let waiting = async {
        loop {
            if town.http.get(format!("{address}/livez")).send().await.is_ok_and(|answer| answer.status() == 200) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        for path in ["/readyz", "/startupz", "/v1/sagas"] {
            assert_eq!(town.http.get(format!("{address}{path}")).send().await.unwrap().status(), 503, "{path}");
        }
        forward(port, server).await
    };
    let started = async { tokio::join!(town.serve("a", ALL, true), waiting) };
    let (process, _forwarding) = tokio::time::timeout(PATIENCE, started).await.expect("it is ready");
    assert!(process.terminate(), "it ends well\n{}", town.logs());
}

#[tokio::test]
async fn a_process_whose_database_goes_away_while_it_waits_for_its_brokers_waits_for_both() {
    let mut town = Town::new();
    let mut url = reqwest::Url::parse(town.variable("ENDSTATE_STORE_URL")).unwrap();
    let (database, brokers) = (port(), port());
    let server = (url.host_str().unwrap().to_owned(), url.port().unwrap());
    let broker = town.variable("ENDSTATE_KAFKA_BROKERS").rsplit_once(':').unwrap();
    let broker = (broker.0.to_owned(), broker.1.parse().unwrap());
    url.set_port(Some(database)).unwrap();
    town.set("ENDSTATE_STORE_URL", url.as_str());
    town.set("ENDSTATE_KAFKA_BROKERS", &format!("127.0.0.1:{brokers}"));
    let forwarding = forward(database, server.clone()).await;
    let outages = async {
        // The log is there as soon as the process is.
        town.logs_until("a", "E4061").await;
        drop(forwarding);
        let to_brokers = forward(brokers, broker).await;
        town.logs_until("a", "E4001").await;
        (to_brokers, forward(database, server).await)
    };
    let (process, _forwarding) = tokio::join!(town.serve("a", ALL, true), outages);
    assert!(process.terminate(), "it ends well\n{}", town.logs());
}

#[tokio::test]
async fn a_migration_waits_for_a_database_that_is_coming_up() {
    let town = Town::new();
    let mut url = reqwest::Url::parse(town.variable("ENDSTATE_STORE_URL")).unwrap();
    let server = (url.host_str().unwrap().to_owned(), url.port().unwrap());
    let port = port();
    url.set_port(Some(port)).unwrap();
    let mut migration = tokio::process::Command::new(env!("CARGO_BIN_EXE_endstate"));
    migration.arg("migrate").env("ENDSTATE_STORE_URL", url.as_str());
    let mut migration = migration.stderr(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let mut said = BufReader::new(migration.stderr.take().unwrap()).lines();
    let done = async {
        // The database answers only after it was asked for the first time.
        while !said.next_line().await.unwrap().expect("it goes on").contains("trying again") {}
        let _forwarding = forward(port, server).await;
        migration.wait().await.unwrap().success()
    };
    assert!(tokio::time::timeout(PATIENCE, done).await.expect("it ends"));
    assert_eq!(town.sql("select count(*) > 10 from pg_tables where schemaname = 'public'"), "t");
}

#[tokio::test]
async fn a_process_that_is_asked_to_stop_between_its_ground_and_its_first_answer_ends_well() {
    let town = Town::new();
    assert!(town.serve("a", ALL, false).await.terminate(), "the tables are there\n{}", town.logs());
    let lock = town.transaction("lock table definition in access exclusive mode");
    let (process, _) = town.start("b", ALL, false);
    let waits = "select count(*) from pg_stat_activity where datname = current_database() \
                 and wait_event_type = 'Lock' and application_name like 'endstate%'";
    town.sql_until(waits, |waiting| waiting != "0").await;
    assert!(process.terminate(), "it waits for nothing any more\n{}", town.logs());
    drop(lock);
}

#[test]
fn a_database_that_refuses_is_no_database_that_is_away() {
    let mut town = Town::new();
    let mut url = reqwest::Url::parse(town.variable("ENDSTATE_STORE_URL")).unwrap();
    url.set_password(Some("wrong")).unwrap();
    town.set("ENDSTATE_STORE_URL", url.as_str());
    let said = town.refused("a", ALL);
    assert!(said.contains("password authentication failed"), "{said}");
    assert!(!said.contains("trying again"), "{said}");
}
