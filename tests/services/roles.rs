//! Many processes on PostgreSQL and Kafka: shards move, a killed process loses nothing, and a gateway that decides
//! nothing itself answers all the same.

use crate::town::{PATIENCE, Process, Town};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) const ALL: &str = "gateway,orchestrator,participants,sweeper";

const SAGAS: usize = 200;
const ORDERS: usize = 100;

pub(crate) fn order(number: &str) -> Value {
    json!({
        "order_no": number, "user_id": "ann", "activity_id": "sale-1", "store": "flagship", "currency": "CNY",
        "total_minor": 1_500, "discount_minor": 1_000, "points": 0, "stock_strategy": "reserve", "pay_within_s": 600,
        "lines": [{"line_no": "1", "sku": "tea", "quantity": 1, "price_minor": 1_500}],
    })
}

pub(crate) async fn open_stock(town: &Town, server: &Process) {
    let lines =
        json!([{"participant": "stock", "action": "open", "with": {"unit": "tea", "quantity": 500, "standby": false}}]);
    town.post(std::slice::from_ref(&server.url), "/v1/operations", &json!({"operation": "open-1", "lines": lines}))
        .await;
    let operation = format!("{}/v1/operations/open-1", server.url);
    town.until(&operation, |answer| answer["items"][0]["verdict"] == "done").await;
}

/// One order from its start to its end: placed at either process, paid, completed.
async fn buy(town: &Town, servers: &[String], survivor: &str, number: usize) {
    let number = format!("O-{number}");
    town.post(servers, "/v1/orders", &order(&number)).await;
    let shown = format!("{survivor}/v1/sagas/flash_sale_order/{number}");
    let payable = town.until(&shown, |saga| town.pay_url(saga).is_some()).await;
    let pay_url = town.pay_url(&payable).unwrap();
    town.http.post(&pay_url).json(&json!({"amount_minor": 500, "currency": "CNY"})).send().await.unwrap();
    let ended = town.until(&shown, |saga| saga["phase"] == "ended").await;
    assert_eq!(ended["outcome"], "completed", "{ended:#}");
}

async fn run(town: &Town, servers: &[String], survivor: &str, number: usize) {
    let body = json!({"number": format!("B-{number}"), "fail_at": ""});
    town.post(servers, "/v1/sagas/bench_saga", &body).await;
    let shown = format!("{survivor}/v1/sagas/bench_saga/B-{number}");
    let ended = town.until(&shown, |saga| saga["phase"] == "ended").await;
    assert_eq!(ended["outcome"], "completed", "{ended:#}");
}

/// How many completions the stream of changes tells of, read to its end in pages.
async fn completions(town: &Town, server: &str) -> usize {
    let (mut after, mut count) = (String::new(), 0);
    loop {
        let page = town.until(&format!("{server}/v1/events?limit=100{after}"), |page| page["items"].is_array()).await;
        let items = page["items"].as_array().unwrap();
        if items.is_empty() {
            return count;
        }
        count += items.iter().filter(|change| change["outcome"] == "completed").count();
        after = format!("&after={}", page["next"].as_str().unwrap());
    }
}

#[tokio::test]
async fn one_of_two_processes_is_killed_in_mid_sale_and_every_order_ends_well() {
    one_of_two_is_killed("hop_by_hop", "hop_by_hop").await;
}

#[tokio::test]
async fn one_of_two_fused_processes_is_killed_in_mid_sale_and_every_order_ends_well() {
    one_of_two_is_killed("fused", "fused").await;
}

/// A rolling change of the mode: as long as both are there, they take the participants' shards from each other.
#[tokio::test]
async fn processes_of_both_modes_lose_nothing_while_the_mode_changes() {
    one_of_two_is_killed("hop_by_hop", "fused").await;
}

/// The engine's mode of the one that is killed, and of the other.
async fn one_of_two_is_killed(mode: &str, others: &str) {
    let mut town = Town::new();
    town.set("ENDSTATE_ENGINE_MODE", mode);
    let victim = town.serve("a", ALL, false).await;
    town.set("ENDSTATE_ENGINE_MODE", others);
    let survivor = town.serve("b", ALL, true).await;
    open_stock(&town, &survivor).await;
    let (urls, done) = ([victim.url.clone(), survivor.url.clone()], AtomicUsize::new(0));
    // Every second call goes to the one that will be killed, first.
    let servers =
        |number: usize| if number.is_multiple_of(2) { urls.to_vec() } else { urls.iter().rev().cloned().collect() };
    let (town, done, servers, here) = (&town, &done, &servers, survivor.url.as_str());
    let count = || done.fetch_add(1, Ordering::Relaxed);
    let sagas = (0..SAGAS).map(|number| async move {
        run(town, &servers(number), here, number).await;
        count();
    });
    let orders = (0..ORDERS).map(|number| async move {
        buy(town, &servers(number), here, number).await;
        count();
    });
    let kill = async {
        while done.load(Ordering::Relaxed) < (SAGAS + ORDERS) / 4 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        victim.kill();
    };
    let sale = async { tokio::join!(join_all(sagas), join_all(orders), kill) };
    assert!(tokio::time::timeout(PATIENCE, sale).await.is_ok(), "the sale ends\n{}", town.logs());

    for phase in ["running", "waiting", "compensating", "reversing", "parked"] {
        let open = format!("{here}/v1/sagas?phase={phase}");
        town.until(&open, |page| page["items"].as_array().is_some_and(Vec::is_empty)).await;
    }
    let books = town.until(&format!("{here}/v1/books"), |books| books["items"].is_array()).await;
    let books = books["items"].as_array().unwrap();
    assert!(books.iter().all(|book| book["balanced"] == true), "{books:#?}");
    let tea = books.iter().find(|book| book["asset"] == "stock:tea").unwrap();
    assert_eq!((&tea["used"], &tea["held"], &tea["left"]), (&json!(ORDERS), &json!(0), &json!(500 - ORDERS)));
    assert_eq!(completions(town, here).await, SAGAS + ORDERS, "each is told of once, in pages");
    let money = books.iter().find(|book| book["asset"] == "money:CNY").unwrap();
    assert_eq!((&money["held"], &money["left"]), (&json!(0), &json!(500 * ORDERS)), "{money:#}");
    assert!(survivor.terminate(), "it drains and ends well\n{}", town.logs());
}

#[tokio::test]
async fn a_gateway_that_decides_nothing_answers_with_the_end_and_a_repeat_with_the_first_saga() {
    let town = Town::new();
    let engine = town.serve("engine", "orchestrator,participants,sweeper", false).await;
    let gateway = town.serve("gateway", "gateway", true).await;
    let start = |body: &Value| town.http.post(format!("{}/v1/sagas/bench_saga", gateway.url)).json(body);
    let (body, other) = (json!({"number": "B-1", "fail_at": ""}), json!({"number": "B-1", "fail_at": "lock"}));
    let first = start(&body).header("prefer", "wait=30").send().await.unwrap();
    assert_eq!(first.status(), 200);
    let first: Value = first.json().await.unwrap();
    assert_eq!(first["outcome"], "completed");
    let again = start(&body).send().await.unwrap();
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(again.json::<Value>().await.unwrap()["saga"], first["saga"]);
    assert_eq!(start(&other).send().await.unwrap().status(), 409, "the same number with another body");
    let listed = format!("{}/v1/sagas?phase=ended", gateway.url);
    town.until(&listed, |page| page["items"].as_array().is_some_and(|items| items.len() == 1)).await;
    let call = town.http.post(format!("{}/v1/sagas/bench_saga", engine.url)).json(&body);
    assert_eq!(call.send().await.unwrap().status(), 404, "who is no gateway takes no calls");
    assert!(gateway.terminate() && engine.terminate(), "{}", town.logs());
}
