//! Lists of many sagas: whatever is asked for is read off an index page by page, and never sorted as a whole.

use crate::place;
use endstate_events::SagaId;
use endstate_orchestrator::view::{Filter, list};
use endstate_outbox::{Commit, Kind, Rows, Statement, Store, Value, Write};
use std::collections::HashMap;
use uuid::Uuid;

const MANY: i64 = 20_000;
const FIRST_MS: i64 = 1_700_000_000_000;

static PUT: Statement = Statement {
    name: "test.put_view",
    columns: &[Kind::Id, Kind::Text, Kind::Text, Kind::Text, Kind::Text, Kind::Text, Kind::Text, Kind::Int],
    sql: "with r(saga, definition, number, owner, status, phase, view, started_ms) as ({rows}) \
          insert into saga_view (saga, version, definition, definition_version, number, owner, lane, status, phase, \
          view, search, started_ms, updated_ms) select saga, 1, definition, 1, number, owner, 'live', status, phase, \
          view, '[]', started_ms, 0 from r where true",
};
static PUT_SEARCH: Statement = Statement {
    name: "test.put_search",
    columns: &[Kind::Text, Kind::Int, Kind::Id],
    sql: "with r(value, started_ms, saga) as ({rows}) insert into saga_search (name, value, started_ms, saga) \
          select 'goods', value, started_ms, saga from r where true",
};
static ANALYZE: Statement = Statement { name: "test.analyze", columns: &[], sql: "{select 1|analyze}" };

/// What one in [`MANY`] is like; three start in each millisecond.
#[derive(Clone)]
struct Order {
    saga: Uuid,
    definition: &'static str,
    number: String,
    owner: String,
    status: &'static str,
    phase: &'static str,
    goods: String,
    started_ms: i64,
}

fn orders() -> Vec<Order> {
    let order = |n: i64| Order {
        saga: Uuid::from_u128(1 + n as u128),
        definition: if n % 4 == 0 { "refund_payment" } else { "flash_sale_order" },
        number: format!("ORDER-{:02}-{n:05}", n / 500),
        owner: format!("u-{}", n % 37),
        status: if n % 5 == 0 { "paid" } else { "completed" },
        phase: if n % 100 == 0 { "waiting" } else { "ended" },
        goods: if n % 2 == 0 { "tea".to_owned() } else { format!("cup-{}", n % 50) },
        started_ms: FIRST_MS + n / 3,
    };
    (0..MANY).map(order).collect()
}

async fn put(store: &dyn Store, orders: &[Order]) {
    let (mut views, mut search) = (Rows::new(), Rows::new());
    for order in orders {
        let Order { saga, definition, number, owner, status, phase, goods, started_ms } = order.clone();
        let view = format!("\"{}\"", "x".repeat(500));
        let row = [saga.into(), definition.into(), number.into(), owner.into(), status.into(), phase.into()];
        let [a, b, c, d, e, f] = row;
        views.push([a, b, c, d, e, f, view.into(), started_ms.into()]);
        search.push([goods.into(), started_ms.into(), saga.into()]);
    }
    let writes = vec![Write::exact(&PUT, views), Write::exact(&PUT_SEARCH, search)];
    store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
    store.read(&ANALYZE, Rows::one([])).await.unwrap();
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// What may lead, alone and together.
fn filters() -> Vec<Filter> {
    let any = Filter::default();
    let goods = |value: &str| Some(("goods".to_owned(), value.to_owned()));
    let order = Filter { definition: text("flash_sale_order"), ..any.clone() };
    vec![
        any.clone(),
        order.clone(),
        Filter { status: text("paid"), ..any.clone() },
        Filter { phase: text("waiting"), ..any.clone() },
        Filter { phase: text("ended"), outcome: text("completed"), ..any.clone() },
        Filter { owner: text("u-7"), ..order.clone() },
        Filter { owner: text("u-7"), search: goods("tea"), ..order.clone() },
        Filter { owner: text("u-7"), search: goods("cup-3"), status: text("paid"), ..any.clone() },
        Filter { search: goods("tea"), ..order.clone() },
        Filter { search: goods("cup-3"), number_prefix: text("ORDER-1"), ..any.clone() },
        Filter { number_prefix: text("ORDER-"), ..order.clone() },
        Filter { number_prefix: text("ORDER-0"), status: text("paid"), ..any.clone() },
        Filter { number_prefix: text("ORDER-07"), ..any.clone() },
        Filter { number_prefix: text("ORDER-07"), owner: text("u-7"), ..any.clone() },
        Filter { since_ms: Some(FIRST_MS + 100), until_ms: Some(FIRST_MS + 200), ..order.clone() },
        Filter { since_ms: Some(FIRST_MS + 100), until_ms: Some(FIRST_MS + 5_000), owner: text("u-9"), ..any },
    ]
}

fn passes(filter: &Filter, order: &Order) -> bool {
    let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
    same(&filter.definition, order.definition)
        && same(&filter.status, order.status)
        && same(&filter.phase, order.phase)
        && filter.outcome.is_none()
        && same(&filter.owner, &order.owner)
        && filter.number_prefix.as_deref().is_none_or(|prefix| order.number.starts_with(prefix))
        && filter.search.as_ref().is_none_or(|(_, value)| *value == order.goods)
        && filter.since_ms.is_none_or(|since_ms| order.started_ms >= since_ms)
        && filter.until_ms.is_none_or(|until_ms| order.started_ms < until_ms)
}

#[tokio::test]
async fn every_list_is_complete_newest_first_and_read_off_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = place::open(folder.path()).await;
    let mut orders = orders();
    put(&*store, &orders).await;
    orders.reverse();
    for filter in filters() {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let (rows, next) = list(&*store, &filter, after, 97).await.unwrap();
            assert!(rows.len() == 97 || next.is_none(), "{filter:?}");
            found.extend(rows.iter().map(|row| row.saga));
            after = next;
            if after.is_none() {
                break;
            }
        }
        let right = orders.iter().filter(|order| passes(&filter, order)).map(|order| SagaId(order.saga));
        assert!(found.iter().copied().eq(right), "{} of {filter:?}", found.len());
    }
    let leads = ["", "_by_definition", "_by_status", "_by_phase", "_by_owner", "_by_search"];
    for lead in leads {
        let plan = plan(&*store, &format!("view.list{lead}")).await;
        let upper = plan.to_uppercase();
        let whole = ["SORT", "TEMP B-TREE", "BITMAP", "SEQ SCAN", "HASHED", "SCAN V\n", "SCAN K\n"];
        assert!(whole.iter().all(|words| !upper.contains(words)), "view.list{lead}:\n{plan}");
    }
}

/// How the store would read a page of `flash_sale_order`s of one buyer with tea.
async fn plan(store: &dyn Store, name: &str) -> String {
    let statements = endstate_orchestrator::statements();
    let of = statements.iter().find(|statement| statement.name == name).unwrap();
    let sql = format!("{{explain query plan|explain}} {}", of.sql).leak();
    let explain = Box::leak(Box::new(Statement { name: "test.explain", columns: of.columns, sql }));
    let names = of.sql.split_once("r(").and_then(|(_, rest)| rest.split_once(')')).unwrap().0;
    let given: HashMap<&str, Value> = HashMap::from([
        ("definition", "flash_sale_order".into()),
        ("status", "paid".into()),
        ("phase", "waiting".into()),
        ("owner", "u-7".into()),
        ("search_name", "goods".into()),
        ("search_value", "tea".into()),
        ("since_ms", 0.into()),
        ("at_ms", i64::MAX.into()),
        ("at_id", Uuid::max().into()),
        ("page", 51.into()),
    ]);
    let mut names = names.split(", ");
    let mut value = || given.get(names.next().unwrap()).cloned().unwrap_or(Value::Null);
    let row: [Value; COLUMNS] = std::array::from_fn(|_| value());
    let rows = store.read(explain, Rows::one(row)).await.unwrap();
    rows.iter().filter_map(|row| row.last()?.text().map(|line| format!("{line}\n"))).collect()
}

/// What every list is given.
const COLUMNS: usize = 13;
