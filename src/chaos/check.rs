//! What must be true when a case is over: three books agree, every saga is final, and the tables say the same in every way
//! in which they can be asked.

use super::anew;
use super::case::Case;
use super::load::{Journal, Load};
use super::town::{PARTITIONS, Town};
use super::twice;
use anyhow::Context as _;
use endstate_events::Environment;
use endstate_outbox::postgres::Settings;
use endstate_outbox::{Kind, PostgresStore, Row, Rows, Statement, Store as _};
use reqwest::Method;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long the last linked sagas, views and marks may take after the last buyer's end.
const SETTLE: Duration = Duration::from_secs(120);

/// A question to the tables; what it finds must not be.
struct Question {
    /// What it means when something is found.
    about: &'static str,
    statement: Statement,
}

/// Findings of one question that are shown.
const SHOWN: i64 = 3;

macro_rules! question {
    ($about:literal, $sql:literal) => {
        Question {
            about: $about,
            statement: Statement {
                name: "chaos.question",
                columns: &[Kind::Int],
                sql: concat!("with r(shown) as ({rows}) ", $sql, " limit (select shown from r)"),
            },
        }
    };
}

/// Each yields one text per finding.
static QUESTIONS: [Question; 14] = [
    question!("a saga has not ended", "select s.id::text || ' is ' || s.phase from saga s where s.phase <> 'ended'"),
    question!(
        "events of a shard are missing, or share a number",
        "select 'shard ' || e.shard || ': ' || e.seq || ', then ' || e.following from (select shard, seq, \
         lead(seq) over (partition by shard order by seq) as following from event) e where e.following <> e.seq + 1"
    ),
    question!(
        "a shard counts other events than there are",
        "select s.side || ' ' || s.shard || ': ' || s.next_seq || ', events end at ' || coalesce(e.last, 0) from shard s \
         left join (select shard, max(seq) as last from event group by shard) e on e.shard = s.shard \
         where s.side = 'orchestrator' and s.next_seq <> coalesce(e.last, 0) + 1"
    ),
    question!(
        "a saga has other events than its version says",
        "select s.id::text || ': version ' || s.version || ', events ' || coalesce(e.events, 0) from saga s \
         left join (select saga, sum(events) as events from event group by saga) e on e.saga = s.id \
         where s.version <> coalesce(e.events, 0)"
    ),
    question!(
        "events of a saga do not follow each other",
        "select e.saga::text || ': after ' || e.version from (select saga, version, events, \
         lead(version) over (partition by saga order by version) as following from event) e \
         where e.following <> e.version + e.events"
    ),
    question!(
        "the view is not what the sagas are",
        "select s.id::text || ': version ' || s.version || ', shown ' || coalesce(v.version::text, 'nothing') \
         from saga s left join saga_view v on v.saga = s.id where v.version is distinct from s.version \
         or v.phase is distinct from s.phase"
    ),
    question!(
        "a number without its saga",
        "select n.definition || ' ' || n.number from saga_number n left join saga s on s.id = n.saga where s.id is null"
    ),
    question!(
        "messages of a shard are missing, or share a number",
        "select o.side || ' ' || o.shard || ': ' || o.seq || ', then ' || o.following from (select side, shard, seq, \
         messages, lead(seq) over (partition by side, shard order by seq) as following from outbox) o \
         where o.following <> o.seq + o.messages"
    ),
    question!(
        "messages were not published",
        "select s.side || ' ' || s.shard || ': ' || s.published_seq || ' of ' || s.next_outbox_seq from shard s \
         where s.published_seq <> s.next_outbox_seq"
    ),
    question!(
        "an account is not the sum of its transfers",
        "select a.id || ': ' || a.posted || ', transfers say ' || coalesce(t.sum, 0) from account a left join (select \
         x.account, sum(x.amount)::bigint as sum from (select credit as account, amount from transfer where kind in \
         ('post', 'direct') union all select debit, -amount from transfer where kind in ('post', 'direct')) x \
         group by x.account) t on t.account = a.id where a.posted <> coalesce(t.sum, 0)"
    ),
    question!(
        "something is still set aside",
        "select a.id || ': ' || a.pending from account a where a.pending <> 0 union all \
         select 'token ' || t.id from token t where t.state = 'held' union all \
         select 'effect ' || f.id || ' is ' || f.state from effect f where f.state in ('held', 'calling') union all \
         select 'call ' || c.id from call c"
    ),
    question!(
        "a transfer was set aside and never resolved",
        "select t.id from transfer t left join transfer x on x.refers_to = t.id where t.kind = 'pending' and x.id is null"
    ),
    question!("two books differ", "select d.kind || ': ' || d.detail from discrepancy d where d.state = 'open'"),
    question!("an input has no saga", "select o.saga::text || ': ' || left(o.body, 300) from orphan o"),
];

static DEAD_LETTERS: Statement = Statement {
    name: "chaos.dead_letters",
    columns: &[Kind::Int],
    sql: "with r(shown) as ({rows}) select d.topic || '/' || d.partition || '/' || d.read_offset || ': ' || d.reason \
          from dead_letter d where d.replayed_ms is null order by d.id",
};

/// What is wrong after a case, and what was to be expected of it, to be told; both empty when nothing is.
pub(crate) async fn after(
    case: Case,
    town: &Town,
    load: &Load,
    journal: &Journal,
) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    std::fs::write(town.folder().join("journal.json"), serde_json::to_string_pretty(journal)?)?;
    let (mut wrong, mut expected) = (Vec::new(), Vec::new());
    for told in &journal.orders {
        if !told.is_final() {
            wrong.push(format!("order {} is not final: {}", told.order, told.last));
        }
        wrong.extend(told.surprises.iter().map(|surprise| format!("order {}: {surprise}", told.order)));
    }
    if case == Case::Standby {
        promoted(town, load, journal, (&mut wrong, &mut expected)).await?;
    } else {
        let (open, books) = load.settle(&journal.orders, &town.provider_file, SETTLE).await?;
        wrong.extend(still(&open));
        wrong.extend(books.differences());
    }
    wrong.extend(tables(town).await?);
    Ok((wrong, expected))
}

fn still(open: &BTreeMap<String, u64>) -> impl Iterator<Item = String> {
    open.iter().map(|(stage, count)| format!("{count} sagas are still open: {stage}"))
}

/// The books after a promotion: of what is told now, with what docs/guarantees.md takes out.
async fn promoted(
    town: &Town,
    load: &Load,
    journal: &Journal,
    (wrong, expected): (&mut Vec<String>, &mut Vec<String>),
) -> anyhow::Result<()> {
    let unknown: u32 = journal.orders.iter().map(|told| told.unknown).sum();
    if unknown > 0 {
        expected.push(format!("as expected: {unknown} answers of 404 before a start was read again"));
    }
    let anew = anew::look(load, &journal.orders, SETTLE).await?;
    std::fs::write(town.folder().join("journal-anew.json"), serde_json::to_string_pretty(&anew.orders)?)?;
    wrong.extend(anew.wrong);
    expected.extend(anew.expected);
    let sale = &load.run.sale;
    let (open, books) = load.settle(&anew.orders, &town.provider_file, SETTLE).await?;
    wrong.extend(still(&open));
    let left = twice::left(&town.provider_file)?;
    let (not_back, back) = twice::forced(&twice::forced_sagas(load).await?, &anew.orders, &left);
    wrong.extend(not_back);
    expected.extend(back);
    let given = twice::given_twice(sale, &anew.orders, &left);
    let mut timelines = BTreeMap::new();
    for order in given.keys() {
        let path = format!("/v1/sagas/{}/{order}/timeline", twice::ORDER);
        timelines.insert(order, load.run.office.call(Method::GET, &path, None, None).await?.body);
    }
    std::fs::write(town.folder().join("timelines.json"), serde_json::to_string_pretty(&timelines)?)?;
    match twice::expected(sale, &books, &given) {
        Some(twice) => expected.push(twice),
        None => wrong.extend(books.differences()),
    }
    Ok(())
}

/// Asks the tables until they are in order, or long enough.
async fn tables(town: &Town) -> anyhow::Result<Vec<String>> {
    let store = store(town).await?;
    let started = Instant::now();
    loop {
        let wrong = ask(&store, town.dead_letters).await?;
        if wrong.is_empty() || started.elapsed() > SETTLE {
            return Ok(wrong);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The town's database, as a process of it would open it.
pub(crate) async fn store(town: &Town) -> anyhow::Result<std::sync::Arc<PostgresStore>> {
    let environment = Environment::new(&town.environment).context("the environment's name")?;
    let settings = Settings { environment, partitions: PARTITIONS, connections: 1, ..Settings::new(&town.database) };
    Ok(PostgresStore::open(&settings).await?)
}

static EPOCHS: Statement = Statement {
    name: "chaos.epochs",
    columns: &[Kind::Int],
    sql: "with r(none) as ({rows}) select coalesce(sum(s.epoch), 0)::bigint from shard s",
};

/// How often shards have been taken over, all together.
pub(crate) async fn epochs(store: &PostgresStore) -> anyhow::Result<i64> {
    let rows = store.read(&EPOCHS, Rows::one([0.into()])).await?;
    Ok(rows.first().and_then(|row| row[0].int()).unwrap_or(0))
}

async fn ask(store: &PostgresStore, dead_letters: usize) -> anyhow::Result<Vec<String>> {
    let text = |row: &Row| row[0].text().unwrap_or_default().to_owned();
    let mut wrong = Vec::new();
    for question in &QUESTIONS {
        let found = store.read(&question.statement, Rows::one([SHOWN.into()])).await.context(question.about)?;
        wrong.extend(found.iter().map(|row| format!("{}: {}", question.about, text(row))));
    }
    let letters = store.read(&DEAD_LETTERS, Rows::one([SHOWN.into()])).await?;
    if letters.len() != dead_letters {
        wrong.push(format!("{} dead letters instead of {dead_letters}", letters.len()));
        wrong.extend(letters.iter().take(3).map(text));
    }
    Ok(wrong)
}
