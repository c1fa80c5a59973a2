//! Z5: a process freezes while the database is inside one of its statements, which holds the row of a shard.

use crate::roles::{ALL, open_stock, order};
use crate::town::Town;
use serde_json::json;

/// Sessions of processes that write a batch, and wait for a lock.
const INSIDE: &str = "select pid from pg_stat_activity where datname = current_database() \
                      and application_name = 'endstate write' and wait_event_type = 'Lock'";

/// Shards whose row somebody holds.
const HELD: &str =
    "select (select count(*) from shard) - (select count(*) from (select from shard for update skip locked) s)";

/// All that was ever decided.
const WRITTEN: &str = "select count(*), coalesce(sum(events), 0), (select sum(version) from saga) from event";

/// Sagas whose version is not the sum of their events, and shards whose numbers have a gap or one twice.
const ODD: &str = "select (select count(*) from saga s where s.version <> (select sum(e.events) from event e where e.saga = s.id)) \
                   + (select count(*) from shard s where s.side = 'orchestrator' and s.next_seq - 1 <> \
                   (select count(distinct e.seq) from event e where e.shard = s.shard))";

#[tokio::test]
async fn z05_a_process_frozen_inside_its_statement_is_passed_over_and_writes_nothing_when_it_wakes() {
    let town = Town::new();
    let frozen = town.serve("a", ALL, false).await;
    open_stock(&town, &frozen).await;
    town.post(std::slice::from_ref(&frozen.url), "/v1/orders", &order("O-1")).await;
    let shown = |url: &str| format!("{url}/v1/sagas/flash_sale_order/O-1");
    let payable = town.until(&shown(&frozen.url), |saga| town.pay_url(saga).is_some()).await;
    town.until(&shown(&frozen.url), |saga| saga["phase"] == "waiting").await;

    // A stranger's lock on the order's row: the next batch gets as far as its shard's row, and not to its end.
    let id = payable["saga"].as_str().expect("it has an id");
    let stranger = town.transaction(&format!("select id from saga where id = '{id}' for update"));
    let cancel = format!("{}/v1/sagas/flash_sale_order/O-1/cancel", frozen.url);
    let body = json!({"reason": "user"});
    let asked = town.http.post(&cancel).header("idempotency-key", "c-1").json(&body).send().await.unwrap();
    assert_eq!(asked.status(), 202, "{}", asked.text().await.unwrap());
    let inside = town.sql_until(INSIDE, |pids| !pids.is_empty()).await;
    assert_eq!(town.sql(HELD), "1", "the row of the order's shard is held by session {inside}");
    frozen.signal("STOP");

    let other = town.serve("b", ALL, true).await;
    // The session is not asked, it cannot answer: who takes over ends it.
    town.sql_until(INSIDE, |pids| pids.lines().all(|pid| pid != inside)).await;
    drop(stranger);
    let ended = town.until(&shown(&other.url), |saga| saga["phase"] == "ended").await;
    assert_eq!(ended["outcome"], "cancelled", "{ended:#}\n{}", town.logs());
    assert!(town.logs().contains("E4041"), "a session was in the way\n{}", town.logs());

    let before = town.sql(WRITTEN);
    frozen.signal("CONT");
    town.until(&shown(&frozen.url), |saga| saga["phase"] == "ended").await;
    // It has heard of its session's end.
    town.logs_until("a", "E4030").await;
    assert_eq!(town.sql(WRITTEN), before);
    assert_eq!(town.sql(ODD), "0");
    let books = town.until(&format!("{}/v1/books", other.url), |books| books["items"].is_array()).await;
    let books = books["items"].as_array().unwrap();
    assert!(books.iter().all(|book| book["balanced"] == true && book["held"] == 0), "{books:#?}");
    assert!(frozen.terminate() && other.terminate(), "{}", town.logs());
}
