//! Z19: days for which nobody has made a table, met by processes in which no sweep runs.

use crate::roles::{open_stock, order};
use crate::town::Town;
use serde_json::json;

/// Every day that exists, and so today.
const DAYS: &str = "select string_agg(inhrelid::regclass::text, ', ') from pg_inherits \
                    where inhparent in ('event'::regclass, 'outbox'::regclass)";

/// Tables of today: one of events, one of messages.
const TODAY: &str = "select count(*) from pg_inherits where inhparent in ('event'::regclass, 'outbox'::regclass) \
                     and right(inhrelid::regclass::text, 8) = to_char(now() at time zone 'UTC', 'YYYYMMDD')";

/// Shards whose mark is behind.
const UNSAVED: &str = "select count(*) from shard where published_seq < next_outbox_seq";

/// As after a jump of the clock over all days that were made ahead: the process has made a week, and none is there.
#[tokio::test]
async fn z19_a_process_without_a_sweep_meets_a_day_that_is_not_there_and_orders_end() {
    let town = Town::new();
    let server = town.serve("a", "gateway,orchestrator,participants", true).await;
    open_stock(&town, &server).await;
    town.sql_until(UNSAVED, |unsaved| unsaved == "0").await;
    let servers = std::slice::from_ref(&server.url);
    for round in 0..2 {
        town.sql(&format!("drop table {}", town.sql(DAYS)));
        assert_eq!(town.sql(TODAY), "0");
        let number = format!("O-{round}");
        town.post(servers, "/v1/orders", &order(&number)).await;
        let shown = format!("{}/v1/sagas/flash_sale_order/{number}", server.url);
        let payable = town.until(&shown, |saga| town.pay_url(saga).is_some()).await;
        let money = json!({"amount_minor": 500, "currency": "CNY"});
        town.http.post(town.pay_url(&payable).unwrap()).json(&money).send().await.unwrap();
        let ended = town.until(&shown, |saga| saga["phase"] == "ended").await;
        assert_eq!(ended["outcome"], "completed", "{ended:#}\n{}", town.logs());
        assert_eq!(town.sql(TODAY), "2", "whoever needed them has made them");
        // An idle shard saves its mark, without anybody who asks for it.
        town.sql_until(UNSAVED, |unsaved| unsaved == "0").await;
    }
    let books = town.until(&format!("{}/v1/books", server.url), |books| books["items"].is_array()).await;
    assert!(books["items"].as_array().unwrap().iter().all(|book| book["balanced"] == true), "{books:#}");
    assert!(server.terminate(), "{}", town.logs());
}
