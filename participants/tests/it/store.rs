//! A whole shard on a real file: what is decided is what is stored, also twice, after a restart, and on sixteen shards.

use crate::world::*;
use endstate_events::*;
use endstate_outbox::*;
use endstate_participants::{HandOver, Participants, Settings, books, operation};
use operation::Line;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;

pub(crate) const MINUTE_MS: i64 = 60_000;

/// A store, its participants' shards, and what they want called.
pub(crate) struct System {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) shards: Vec<Shard<Participants>>,
    pub(crate) calls: mpsc::Receiver<HandOver>,
}

impl System {
    pub(crate) async fn open(folder: &Path) -> Self {
        Self::with_room(folder, 1_000).await
    }

    /// With room for so many hand-overs to the caller.
    pub(crate) async fn with_room(folder: &Path, room: usize) -> Self {
        let (store, bus) = crate::place::open(folder).await;
        Self::on(store, bus, room)
    }

    /// On a store that is open.
    pub(crate) fn on(store: Arc<dyn Store>, bus: Arc<dyn Bus>, room: usize) -> Self {
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let (caller, calls) = mpsc::channel(room);
        let shard = |index| {
            let handler = Participants::new(store.clone(), caller.clone(), Settings::default());
            let id = ShardId { side: Side::Participants, index };
            Shard::new(id, store.clone(), bus.clone(), clock.clone(), handler)
        };
        let shards = (0..store.partitions()).map(shard).collect();
        Self { store, bus, clock, shards, calls }
    }

    /// Runs all shards at once until none has work.
    pub(crate) async fn settle(&mut self) {
        let mut tasks = tokio::task::JoinSet::new();
        for mut shard in self.shards.drain(..) {
            tasks.spawn(async move {
                let open = until_idle(&mut shard).await;
                (shard, open)
            });
        }
        let (shards, open): (_, Vec<_>) = tasks.join_all().await.into_iter().unzip();
        self.shards = shards;
        let open: Vec<_> = open.into_iter().flatten().collect();
        if !open.is_empty() {
            let letters = dead_letter::list(&*self.store, 0, 3).await.unwrap();
            panic!("shards that do not come to rest: {open:?}; dead letters: {letters:?}");
        }
    }

    pub(crate) async fn send(&self, commands: &[Command]) {
        let owned = |command: &Command| Slot::of(&command.key).partition(self.store.partitions());
        let place = |command| Outgoing { partition: owned(command), ..sent(command, NOW_MS) };
        self.bus.produce(commands.iter().map(place).collect()).await.unwrap();
    }

    pub(crate) async fn operate(&mut self, id: &str, lines: &[Line]) {
        let messages = operation::messages(id, lines, Lane::Live, self.store.partitions(), NOW_MS).unwrap();
        self.bus.produce(messages).await.unwrap();
        self.settle().await;
    }

    /// All messages to sagas so far, by the partition's order.
    pub(crate) async fn inputs(&self) -> Vec<Input> {
        let mut inputs = Vec::new();
        for partition in 0..self.store.partitions() {
            let mut consumer = self.bus.consumer(Topic::Progress, partition, 0);
            loop {
                let taken = consumer.take(1000).await.unwrap();
                if taken.is_empty() {
                    break;
                }
                for delivered in taken {
                    let Message::Input(input) = delivered.envelope.unwrap().message.clone() else { panic!() };
                    inputs.push(input);
                }
            }
        }
        inputs
    }

    /// The answers so far, by effect, in short.
    pub(crate) async fn replies(&self) -> BTreeMap<String, Vec<String>> {
        let mut replies: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for input in self.inputs().await {
            if let InputBody::Reply(Reply { effect_id, verdict }) = input.body {
                let short = match verdict {
                    Verdict::Refused { code, .. } => code,
                    verdict => verdict.label().to_owned(),
                };
                replies.entry(effect_id.to_string()).or_default().push(short);
            }
        }
        replies
    }

    pub(crate) async fn book(&self, asset: &str) -> books::Book {
        let books = books::read(&*self.store).await.unwrap();
        assert!(books.iter().all(|book| book.balanced), "{books:?}");
        books.into_iter().find(|book| book.asset == asset).unwrap_or_default()
    }
}

pub(crate) fn sent(command: &Command, time_ms: i64) -> Outgoing {
    let envelope = Envelope {
        id: command.effect_id.to_string(),
        schema: SCHEMA_VERSION,
        time_ms,
        key: command.key.clone(),
        lane: Lane::Live,
        message: Message::Command(command.clone()),
    };
    let partition = Slot::of(&command.key).partition(4);
    Outgoing { topic: Topic::Commands, partition, envelope: envelope.into() }
}

pub(crate) fn line(call: &str, with: Json) -> Line {
    let (participant, action) = call.split_once('.').unwrap();
    Line { participant: participant.into(), action: action.into(), with }
}

fn refund_of(n: u64) -> Command {
    let payment = json!({
        "provider": "simpay", "provider_no": "P1", "amount_minor": 100, "currency": "CNY", "saga": saga(n)
    });
    tell(n, "payment.refund", "k", json!({ "payment": payment, "amount_minor": 100 }))
}

/// One order through all its commands; every third is given back.
fn order(n: u64) -> Vec<Command> {
    let user = format!("user-{}", n % 7);
    let (stock, coupon) = (hold_stock(n, &format!("U{}", n % 16), 2), hold_coupon(n, &format!("C{n}"), &user));
    let award = points(n, "award", &user, 10);
    let (stocked, used) = (about("confirm", &stock), about("confirm", &coupon));
    let mut commands = vec![stock.clone(), coupon.clone(), stocked.clone(), used.clone(), award.clone()];
    if n.is_multiple_of(3) {
        commands.push(undo("take_back", &award));
        commands.extend([undo("unconfirm", &stocked), undo("unconfirm", &used)]);
        commands.extend([undo("release", &stock), undo("release", &coupon)]);
    }
    commands
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn z04_sixteen_shards_share_no_account_and_their_books_hold() {
    const ORDERS: u64 = 1_600;
    let folder = tempfile::tempdir().unwrap();
    let (store, bus) = crate::place::wide(folder.path(), 16).await;
    let mut system = System::on(store, bus, 1_000);
    assert_eq!(system.shards.len(), 16);
    let mut lines: Vec<_> =
        (0..16).map(|unit| line("stock.open", json!({ "unit": format!("U{unit}"), "quantity": 1000 }))).collect();
    lines.extend(
        (0..ORDERS)
            .map(|n| line("coupon.open", json!({ "coupon": format!("C{n}"), "user": format!("user-{}", n % 7) }))),
    );
    system.operate("opening", &lines).await;

    // Orders and adjustments of the same accounts, mixed; then every message once more.
    let commands: Vec<_> = (0..ORDERS).flat_map(order).collect();
    assert!(commands.len() > 10_000);
    let adjust = |unit| line("stock.adjust", json!({ "unit": format!("U{unit}"), "delta": 3 }));
    let adjustments: Vec<_> = (0..16).map(adjust).collect();
    for chunk in commands.chunks(500) {
        system.send(chunk).await;
        system.operate(&format!("adjust-{}", chunk[0].effect_id), &adjustments).await;
    }
    let replies = system.replies().await;
    let mut books = books::read(&*system.store).await.unwrap();
    system.send(&commands).await;
    system.operate("opening", &lines).await;
    assert_eq!(books, books::read(&*system.store).await.unwrap(), "told again, nothing changes");
    for (effect, answers) in system.replies().await {
        assert!(answers.iter().all(|answer| *answer == replies[&effect][0]), "{effect}: {answers:?}");
    }

    assert!(replies.values().all(|answers| answers == &["done"]), "{replies:?}");
    assert!(books.iter().all(|book| book.balanced && book.held == 0));
    books.retain(|book| book.asset.starts_with("stock:"));
    let kept = ORDERS - ORDERS.div_ceil(3);
    assert_eq!(books.iter().map(|book| book.used).sum::<i64>(), 2 * kept as i64);
    assert_eq!(system.book("coupon").await.used, kept as i64);
    assert_eq!(system.book("points").await.left, 10 * kept as i64);
}

#[tokio::test]
async fn what_a_desk_decides_in_memory_a_store_decides_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path()).await;
    let lines = [
        line("stock.open", json!({ "unit": "A", "quantity": 10 })),
        line("stock.open", json!({ "unit": "A", "quantity": 5, "standby": true })),
        line("coupon.open", json!({ "coupon": "C", "user": "ann" })),
        line("points.adjust", json!({ "user": "ann", "delta": 100 })),
    ];
    system.operate("opening", &lines).await;
    let mut desk = opened();
    let (hold, coupon, award) = (hold_stock(1, "A", 4), hold_coupon(1, "C", "ann"), points(1, "award", "ann", 30));
    let (confirm, late) = (about("confirm", &hold), hold_stock(2, "A", 1));
    let spend = points(3, "hold", "ann", 130);
    let story = [
        hold.clone(),
        ask(&hold),
        hold_stock(1, "A", 5),
        confirm.clone(),
        undo("release", &hold),
        coupon.clone(),
        hold_coupon(2, "C", "ann"),
        award.clone(),
        spend.clone(),
        about("confirm", &spend),
        undo("take_back", &award),
        undo("release", &late),
        late.clone(),
        ask(&late),
        tell(4, "stock.take", "A", json!({ "unit": "A", "quantity": 7, "standby": true })),
        tell(5, "stock.take", "A", json!({ "unit": "A", "quantity": 5, "standby": true })),
        undo("unconfirm", &confirm),
        undo("release", &hold),
        undo("release", &coupon),
        hold_coupon(6, "C", "ann"),
        points(7, "award", "ann", 50),
    ];
    for command in &story {
        let before = system.replies().await.get(&command.effect_id.to_string()).map_or(0, Vec::len);
        system.send(std::slice::from_ref(command)).await;
        system.settle().await;
        let answers = system.replies().await[&command.effect_id.to_string()].clone();
        assert_eq!(answers[before..], [says(&mut desk, command)], "{command:?}");
    }
    let book = system.book("stock:A").await;
    let held = balance(&desk, "stock:A:available").1;
    assert_eq!((book.opened, book.held, book.left), (15, held, 15 - book.used - held));
    assert_eq!(system.book("points").await.owed, -balance(&desk, "points:ann:debt").0);
}

#[tokio::test]
async fn z08_a_call_that_was_open_at_a_crash_is_resumed_by_the_next_owner() {
    let folder = tempfile::tempdir().unwrap();
    let refund = refund_of(1);
    {
        let mut system = System::open(folder.path()).await;
        system.send(std::slice::from_ref(&refund)).await;
        system.settle().await;
        let first = system.calls.try_recv().expect("the call is handed over");
        assert!(!first.resumed && first.calls.len() == 1);
        assert_eq!(*first.calls[0].command, refund);
        assert!(system.replies().await.is_empty());
    }
    let mut system = System::open(folder.path()).await;
    system.settle().await;
    let resumed = system.calls.try_recv().expect("the call is handed over again");
    assert!(resumed.resumed);
    assert_eq!(*resumed.calls[0].command, refund);

    // Its answer, twice: booked once, and after another assignment nothing is open.
    let reply =
        Reply { effect_id: refund.effect_id.clone(), verdict: Verdict::Done { data: json!({ "refund_no": "R1" }) } };
    let mut message = sent(&refund, NOW_MS);
    Arc::make_mut(&mut message.envelope).message = Message::Answer(reply);
    system.bus.produce(vec![message.clone(), message]).await.unwrap();
    system.settle().await;
    assert_eq!(system.replies().await[&refund.effect_id.to_string()], ["done"]);
    assert_eq!(system.book("money:CNY").await.returned, 100);
    drop(system);
    let mut system = System::open(folder.path()).await;
    system.settle().await;
    assert!(system.calls.try_recv().is_err());
}

#[tokio::test]
async fn z08_a_call_answered_and_wanted_again_in_one_batch_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path()).await;
    let (refund, verdict) = (refund_of(1), Verdict::unknown("no answer"));
    system.send(std::slice::from_ref(&refund)).await;
    system.settle().await;
    assert_eq!(system.calls.try_recv().expect("the call is handed over").calls.len(), 1);
    let mut unknown = sent(&refund, NOW_MS);
    Arc::make_mut(&mut unknown.envelope).message =
        Message::Answer(Reply { effect_id: refund.effect_id.clone(), verdict });
    system.bus.produce(vec![unknown, sent(&refund, NOW_MS)]).await.unwrap();
    system.settle().await;
    assert_eq!(*system.calls.try_recv().expect("it is handed over again").calls[0].command, refund);
}

static OVERDRAW: Statement = Statement {
    name: "test.overdraw",
    columns: &[Kind::Text],
    sql: "with r(id) as ({rows}) update account set posted = -1 from r where account.id = r.id",
};
static REWRITE: Statement = Statement {
    name: "test.rewrite",
    columns: &[Kind::Int],
    sql: "with r(amount) as ({rows}) update transfer set amount = r.amount from r",
};

#[tokio::test]
async fn the_last_net_under_the_decisions_is_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path()).await;
    system.operate("opening", &[line("stock.open", json!({ "unit": "A", "quantity": 10 }))]).await;
    let write = |statement, row| Commit { writes: vec![Write::any(statement, row)], ..Commit::default() };
    let overdrawn = system.store.commit(write(&OVERDRAW, Rows::one(["stock:A:available".into()]))).await;
    assert!(matches!(overdrawn, Err(CommitError::Data(_))), "{overdrawn:?}");
    let rewritten = system.store.commit(write(&REWRITE, Rows::one([1.into()]))).await;
    assert!(rewritten.is_err(), "{rewritten:?}");
}

/// A coupon's number is one person's. The others may be of other shards, which read and write at the same moment.
#[tokio::test]
async fn a_coupon_given_to_several_people_is_the_first_ones_and_no_dead_letter() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path()).await;
    let lines: Vec<_> =
        (0..8).map(|n| line("coupon.open", json!({ "coupon": "C-1", "user": format!("user-{n}") }))).collect();
    system.operate("given", &lines).await;
    assert_eq!(dead_letter::list(&*system.store, 0, 10).await.unwrap(), []);
    assert_eq!(system.book("coupon").await.opened, 1);
    let holds: Vec<_> = (0..8).map(|n| hold_coupon(n, "C-1", &format!("user-{n}"))).collect();
    system.send(&holds).await;
    system.settle().await;
    let mut told: Vec<_> = system.replies().await.into_values().flatten().collect();
    told.sort();
    assert_eq!(told, [vec!["coupon.foreign"; 7], vec!["done"]].concat());
}

#[tokio::test]
async fn hostile_payloads_are_refused_and_the_batch_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path()).await;
    system.operate("opening", &[line("stock.open", json!({ "unit": "A", "quantity": 10 }))]).await;
    let units = ["'; drop table account; --", "", "\u{1F600}", &"x".repeat(100_000), "A:available"];
    let mut commands: Vec<_> = (0..).zip(units).map(|(n, unit)| hold_stock(n, unit, 1)).collect();
    commands.push(hold_stock(99, "A", 1));
    let nul = hold_stock(50, "A\u{0}B", 1);
    system.send(&[std::slice::from_ref(&nul), &commands].concat()).await;
    system.settle().await;
    let replies = system.replies().await;
    for command in &commands[..units.len()] {
        assert_eq!(replies[&command.effect_id.to_string()], ["stock.unknown"], "{:?}", command.with);
    }
    assert_eq!(replies[&commands[units.len()].effect_id.to_string()], ["done"]);
    // A store whose texts can hold it answers; else the command waits among the dead letters, and its saga is told.
    let told = &replies[&nul.effect_id.to_string()];
    match dead_letter::list(&*system.store, 0, 10).await.unwrap().as_slice() {
        [] => assert_eq!(*told, ["stock.unknown"]),
        [letter] => assert!(letter.letter.bytes.contains("A\\u0000B") && *told == ["unknown"], "{told:?}, {letter:?}"),
        more => panic!("{more:?}"),
    }
}

/// A number from a seed; the same seed gives the same story.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

fn any_command(seed: &mut u64) -> Command {
    let n = next(seed) % 12;
    let quantity = (1 + n % 4) as i64;
    let hold = match n % 3 {
        0 => hold_stock(n, "A", quantity),
        1 => hold_coupon(n, "C", "ann"),
        _ => points(n, "hold", "ann", 20 * quantity),
    };
    let award = points(n, "award", "ann", 15);
    let take = tell(n, "stock.take", "A", json!({ "unit": "A", "quantity": quantity, "standby": n > 5 }));
    match next(seed) % 12 {
        0..=2 => hold,
        3 => about("confirm", &hold),
        4 => undo("unconfirm", &about("confirm", &hold)),
        5 => undo("release", &hold),
        6 => ask(&hold),
        7 => award,
        8 => undo("take_back", &award),
        9 => take,
        10 => undo("put_back", &take),
        _ => Command { with: json!({ "unit": "A", "quantity": quantity + 1 }), ..hold },
    }
}

#[tokio::test]
async fn random_stories_end_the_same_in_memory_and_on_disk() {
    for first in 0..6_u64 {
        let mut seed = first;
        let folder = tempfile::tempdir().unwrap();
        let mut system = System::open(folder.path()).await;
        let lines = [
            line("stock.open", json!({ "unit": "A", "quantity": 10 })),
            line("stock.open", json!({ "unit": "A", "quantity": 5, "standby": true })),
            line("coupon.open", json!({ "coupon": "C", "user": "ann" })),
            line("points.adjust", json!({ "user": "ann", "delta": 100 })),
        ];
        system.operate("opening", &lines).await;
        let mut desk = opened();
        let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for _ in 0..25 {
            // Keys of one partition only keep their order; so stock, coupons and points are told apart.
            let batch: Vec<_> = (0..1 + next(&mut seed) % 8).map(|_| any_command(&mut seed)).collect();
            for command in &batch {
                let said = says(&mut desk, command);
                expected.entry(command.effect_id.to_string()).or_default().push(said);
            }
            system.send(&batch).await;
            system.settle().await;
        }
        assert_eq!(system.replies().await, expected, "seed {first}");
        for (asset, account) in [("stock:A", "stock:A:available"), ("points", "points:ann:available")] {
            let (posted, pending) = balance(&desk, account);
            let standby = balance(&desk, "stock:A:standby");
            let more = if asset == "points" { balance(&desk, "points:ann:debt").0 } else { standby.0 - standby.1 };
            let book = system.book(asset).await;
            assert_eq!(book.left, posted - pending + more, "seed {first}: {asset}");
        }
    }
}
