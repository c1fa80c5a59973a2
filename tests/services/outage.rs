//! Z18: a broker of its own is killed in mid-sale and started again. What was accepted meanwhile is final afterwards.

use crate::roles::{ALL, open_stock, order};
use crate::town::{Broker, PATIENCE, Town};
use futures_util::future::join_all;
use serde_json::{Value, json};

/// Orders that wait for their payment when the broker is killed, and those that come while it is away.
const WAITING: usize = 10;
const MEANWHILE: usize = 30;

#[tokio::test]
async fn z18_the_broker_is_killed_in_mid_sale_and_every_accepted_order_is_final_when_it_is_back() {
    let broker = Broker::start();
    let town = Town::on(broker.address());
    let server = town.serve("a", ALL, true).await;
    open_stock(&town, &server).await;
    let (town, urls) = (&town, std::slice::from_ref(&server.url));
    let here = server.url.as_str();
    let shown = |number: usize| format!("{here}/v1/sagas/flash_sale_order/O-{number}");
    let payable = async |number: usize| {
        let payable = town.until(&shown(number), |saga| town.pay_url(saga).is_some()).await;
        town.pay_url(&payable).unwrap()
    };
    let pay = async |url: String| {
        let money = json!({"amount_minor": 500, "currency": "CNY"});
        town.http.post(&url).json(&money).send().await.unwrap().error_for_status().unwrap();
    };
    let before = (0..WAITING).map(|number| async move {
        town.post(urls, "/v1/orders", &order(&format!("O-{number}"))).await;
        payable(number).await
    });
    let before = tokio::time::timeout(PATIENCE, join_all(before)).await.expect("the sale begins");

    broker.kill();
    // Each call once: no client repeats it.
    let starts = (WAITING..WAITING + MEANWHILE).map(|number| async move {
        let call = town.http.post(format!("{here}/v1/orders")).json(&order(&format!("O-{number}")));
        (number, call.send().await.unwrap().status().as_u16())
    });
    let answers = join_all(starts).await;
    assert!(answers.iter().all(|(_, status)| *status == 202), "{answers:?}\n{}", town.logs());
    // The provider's callbacks are taken too; those of the paid orders come while nobody can go on.
    join_all(before.into_iter().map(&pay)).await;
    let told = async |metric: &str| {
        let page = town.http.get(format!("{here}/metrics")).send().await.unwrap().text().await.unwrap();
        let values = page.lines().filter(|line| line.starts_with(metric)).filter_map(|line| line.rsplit_once(' '));
        values.map(|(_, value)| value.parse::<f64>().unwrap()).sum::<f64>()
    };
    let spilled = async {
        while told("endstate_bus_spilled_messages_total").await < (WAITING + MEANWHILE) as f64 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, spilled).await.expect("orders and payments are taken");

    let ready = town.http.get(format!("{here}/readyz")).send().await.unwrap().status();
    assert_eq!(ready, 200, "calls are taken, so a load balancer may send some");

    broker.revive();
    let paid = (WAITING..WAITING + MEANWHILE).map(|number| async move { pay(payable(number).await).await });
    tokio::time::timeout(PATIENCE, join_all(paid)).await.expect("what was accepted goes on");
    for number in 0..WAITING + MEANWHILE {
        let ended = town.until(&shown(number), |saga| saga["phase"] == "ended").await;
        assert_eq!(ended["outcome"], "completed", "{ended:#}\n{}", town.logs());
    }
    let books = town.until(&format!("{here}/v1/books"), |books| books["items"].is_array()).await;
    let books = books["items"].as_array().unwrap();
    assert!(books.iter().all(|book| book["balanced"] == true), "{books:#?}");
    let tea = books.iter().find(|book: &&Value| book["asset"] == "stock:tea").unwrap();
    assert_eq!((&tea["used"], &tea["held"]), (&json!(WAITING + MEANWHILE), &json!(0)));
    let money = books.iter().find(|book| book["asset"] == "money:CNY").unwrap();
    assert_eq!((&money["held"], &money["left"]), (&json!(0), &json!(500 * (WAITING + MEANWHILE))), "{money:#}");
    assert!(server.terminate(), "it drains and ends well\n{}", town.logs());
}
