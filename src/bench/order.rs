//! Orders of `flash_sale_order` as load: one line of stock and some points, paid as soon as the payment is open by the
//! customers of a simulated provider; some want what is sold out.

use super::load::Seen;
use crate::node::Node;
use anyhow::{Context as _, bail, ensure};
use endstate_outbox::SystemClock;
use endstate_participants::books::{self, Book};
use endstate_participants::simulated::{self, Simulated};
use serde_json::json;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// What both sides of the simulated provider sign with.
pub(super) const SECRET: &str = "bench-provider";

/// Units on sale; each has one account, which every order of it changes.
const UNITS: u64 = 20;
/// Users, each with an account of points.
const USERS: u64 = 1_000;
/// What an order costs, takes of points, and so leaves to pay; minor units.
const PRICE: u64 = 1_500;
const POINTS: u64 = 100;
/// More than any run can use.
const PLENTY: u64 = 1_000_000_000;

/// Lines of one operation: what is opened goes in some calls.
const PIECE: usize = 500;

/// How long the ledger may take to show what was opened.
const PATIENCE: Duration = Duration::from_secs(60);

/// An order, as its definition takes it.
pub(super) fn body(number: &str, n: u64, fails: bool) -> String {
    let mut unit = format!("unit-{}", n % UNITS);
    if fails {
        "sold-out".clone_into(&mut unit);
    }
    // Two primes apart, so that users and units meet in every combination.
    let user = n.wrapping_mul(7_919) % USERS;
    let mut body = String::with_capacity(400);
    let _ = write!(
        body,
        r#"{{"order_no":"{number}","user_id":"user-{user}","activity_id":"bench","store":"flagship","currency":"CNY","total_minor":{PRICE},"discount_minor":{POINTS},"points":{POINTS},"stock_strategy":"reserve","pay_within_s":1800,"lines":[{{"line_no":"1","sku":"{unit}","quantity":1,"price_minor":{PRICE}}}]}}"#
    );
    body
}

/// Starts the provider on the threads of the world outside; returns its address.
pub(super) fn provider(
    runtime: &tokio::runtime::Runtime,
    server: SocketAddr,
    folder: &Path,
    stop: CancellationToken,
) -> anyhow::Result<String> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let url = format!("http://{server}/v1/callbacks/simpay");
    let settings = simulated::Config {
        pays_at_once: true,
        ..simulated::Config::local(&url, SECRET.as_bytes(), &folder.join("provider.ndjson"))
    };
    // Called from a thread of the other runtime, which may not block on this one.
    let (sender, receiver) = std::sync::mpsc::channel();
    runtime.spawn(async move {
        match Simulated::bind(settings, Arc::new(SystemClock)).await {
            Ok(provider) => {
                sender.send(Ok(provider.address())).ok();
                if let Err(error) = provider.serve(stop).await {
                    tracing::error!(%error, "the simulated provider ended");
                }
            }
            Err(error) => _ = sender.send(Err(error)),
        }
    });
    let address = receiver.recv().context("the simulated provider did not start")??;
    Ok(format!("http://{address}"))
}

/// Opens stock and points through the API, and waits until the ledger has them.
pub(super) async fn open(node: &Node, server: SocketAddr) -> anyhow::Result<()> {
    let line =
        |participant: &str, action: &str, with| json!({ "participant": participant, "action": action, "with": with });
    let stock = |unit: u64| {
        line("stock", "open", json!({ "unit": format!("unit-{unit}"), "quantity": PLENTY, "standby": false }))
    };
    let points = |user: u64| line("points", "adjust", json!({ "user": format!("user-{user}"), "delta": PLENTY }));
    let lines: Vec<_> = (0..UNITS).map(stock).chain((0..USERS).map(points)).collect();
    let http = endstate_http::Trust::system().builder().timeout(Duration::from_secs(20)).build()?;
    for (piece, lines) in lines.chunks(PIECE).enumerate() {
        let operation = json!({ "operation": format!("bench-{piece}"), "lines": lines });
        let answer = http.post(format!("http://{server}/v1/operations")).json(&operation).send().await?;
        ensure!(answer.status().is_success(), "what is to be sold was not opened: {}", answer.text().await?);
    }
    let begin = Instant::now();
    while sum(&books::read(&*node.store).await?, "stock") + sum(&books::read(&*node.store).await?, "points")
        < (PLENTY * (UNITS + USERS)).cast_signed()
    {
        if begin.elapsed() > PATIENCE {
            bail!("the ledger does not show what was opened");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn sum(books: &[Book], kind: &str) -> i64 {
    let of_kind = books.iter().filter(|book| book.asset.split(':').next() == Some(kind));
    of_kind.map(|book| book.left + book.held + book.used).sum()
}

/// Compares the ledger with what the clients were told, and with what the provider took.
pub(super) async fn balanced(node: &Node, seen: &Seen, folder: &Path) -> anyhow::Result<bool> {
    let books = books::read(&*node.store).await?;
    let lines = simulated::read_file(&folder.join("provider.ndjson")).map_err(anyhow::Error::msg)?;
    let taken: i64 = lines
        .iter()
        .filter_map(|line| match &line.entry {
            simulated::Entry::Captured { callback } => Some(callback.amount_minor.get()),
            _ => None,
        })
        .sum();
    let used: i64 = books.iter().filter(|book| book.asset.starts_with("stock")).map(|book| book.used).sum();
    let held: i64 = books.iter().map(|book| book.held).sum();
    let kept: i64 = books.iter().filter(|book| book.asset == "money:CNY").map(|book| book.left).sum();
    let sold = seen.completed.cast_signed();
    let agree = used == sold && held == 0 && kept == taken && taken == sold * (PRICE - POINTS).cast_signed();
    if !agree {
        eprintln!("wrong: {sold} orders completed; used {used}, held {held}, money kept {kept}, taken {taken}");
    }
    Ok(agree && books.iter().all(|book| book.balanced))
}
