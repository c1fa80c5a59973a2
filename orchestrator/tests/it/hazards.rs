//! Hazards of the orchestrator's side, by number: see docs/hazards.md.

use crate::system::{System, done, job, odd_job, source};
use endstate_events::{
    Command, CommandKind, Direction, EffectId, Envelope, InputBody, Message, Reply, ReplyTo, SagaId, Slot, Topic,
    Verdict,
};
use endstate_orchestrator::persist;
use endstate_orchestrator::waiters::Claim;
use endstate_outbox::{Clock as _, Commit, Kind, Rows, Statement, Turn, Write};
use serde_json::{Value, json};

pub(crate) fn bench(number: &str) -> Value {
    json!({ "number": number, "fail_at": "" })
}

/// Numbers whose sagas belong to shard 0.
fn of_shard_0(system: &mut System, count: usize) -> Vec<(SagaId, endstate_outbox::Outgoing)> {
    let starts = (0..).map(|n| system.start("bench_saga", bench(&format!("n-{n}"))));
    starts.filter(|(_, start)| start.partition == 0).take(count).collect()
}

/// A reply passes a rush of starts, and no more starts are taken than may be in motion.
#[tokio::test]
async fn z07_progress_passes_a_rush_of_starts() {
    const MOST: usize = 5;
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), MOST).await;
    system.definitions.load(&source("bench_saga"), 0).await.unwrap();
    let starts = of_shard_0(&mut system, 2_001);
    let (first, start) = starts[0].clone();
    system.queue(&[start]).await;
    system.run_until_idle().await;
    let rush: Vec<_> = starts[1..].iter().map(|(_, start)| start.clone()).collect();
    system.queue(&rush).await;
    let reply = system.message(Topic::Progress, first, "reply".into(), done(first, "reserve"));
    system.queue(&[reply]).await;
    assert_eq!(system.shards[0].turn().await, Turn::Worked);
    assert_eq!(&*system.saga(first).await.unwrap().status, "locking", "the reply came last and is decided first");
    assert!(system.shards[0].handler().in_motion() <= MOST);
    system.run_until_idle().await;
    assert_eq!(system.shards[0].handler().in_motion(), MOST);
    let stored = persist::count_in_motion(&*system.store, 0).await.unwrap();
    assert_eq!(stored, MOST, "the others wait their turn");
}

/// A thousand numbers, each claimed by two users on two shards at once: one wins, the other is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn z11_a_number_claimed_on_two_shards_is_one_saga() {
    const NUMBERS: usize = 1_000;
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 2 * NUMBERS).await;
    for name in ["refund_payment", "flash_sale_order"] {
        system.definitions.load(&source(name), 0).await.unwrap();
    }
    let sample: Value = serde_json::from_str(&source("flash_sale_order").samples["free.json"]).unwrap();
    let shard_of = |user: &String| Slot::of(&format!("{user}/spring-sale")).partition(system.store.partitions());
    let mut users = (0..).map(|n| format!("u-{n}"));
    let ann = users.next().unwrap();
    let bob = users.find(|user| shard_of(user) != shard_of(&ann)).unwrap();
    let mut claims = Vec::new();
    for n in 0..NUMBERS {
        for user in [&ann, &bob] {
            let mut input = sample["input"].clone();
            input["order_no"] = json!(format!("O-{n}"));
            input["user_id"] = json!(user);
            let (saga, start) = system.start("flash_sale_order", input);
            claims.push((format!("O-{n}"), saga, start));
        }
    }
    assert_ne!(claims[0].2.partition, claims[1].2.partition);
    let waiting: Vec<_> = claims.iter().map(|(_, saga, _)| system.waiters.sagas.wait(*saga)).collect();
    // Ann's in order, Bob's backwards: what one batch claims first, the other claims last.
    let anns = claims.iter().step_by(2);
    let bobs = claims.iter().skip(1).step_by(2).rev();
    let starts: Vec<_> = anns.chain(bobs).map(|(.., start)| start.clone()).collect();
    system.queue(&starts).await;
    system.run_until_idle().await;
    for (pair, news) in claims.chunks(2).zip(waiting.chunks(2)) {
        let held = persist::load_numbers(&*system.store, &[("flash_sale_order", &pair[0].0)]).await.unwrap();
        let [(_, held)] = held.as_slice() else { panic!("{}: {held:?}", pair[0].0) };
        for ((number, saga, _), news) in pair.iter().zip(news) {
            let wins = *saga == held.saga;
            assert_eq!(system.saga(*saga).await.is_some(), wins, "{number}");
            let claim = if wins { Claim::First } else { Claim::Taken { by: held.saga, same_body: false } };
            assert_eq!(news.latest().claim, Some(claim), "{number}");
        }
    }
}

/// The new program ships version 2 only; a saga of version 1 goes on as version 1.
#[tokio::test]
async fn z15_a_saga_keeps_its_version_when_the_file_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let old = {
        let mut system = System::open(folder.path(), 10).await;
        system.definitions.load(&source("bench_saga"), 0).await.unwrap();
        let (old, start) = system.start("bench_saga", bench("old"));
        system.queue(&[start]).await;
        system.run_until_idle().await;
        old
    };
    let mut system = System::open(folder.path(), 10).await;
    let mut second = source("bench_saga");
    second.text = second.text.replace("version: 1", "version: 2").replace("status: locking", "status: bolting");
    system.definitions.load(&second, 0).await.unwrap();
    system.definitions.activate("bench_saga", 2, 0).await.unwrap();
    let (new, start) = system.start("bench_saga", bench("new"));
    system.queue(&[start]).await;
    system.run_until_idle().await;
    for saga in [old, new] {
        let reply = system.message(Topic::Progress, saga, format!("{saga}"), done(saga, "reserve"));
        system.queue(&[reply]).await;
    }
    system.run_until_idle().await;
    let (old, new) = (system.saga(old).await.unwrap(), system.saga(new).await.unwrap());
    assert_eq!((old.definition_version, &*old.status), (1, "locking"));
    assert_eq!((new.definition_version, &*new.status), (2, "bolting"));
}

/// Timers that are due at once are fired in pages, so that their number does not decide how much memory a batch takes.
#[tokio::test]
async fn z20_timers_due_at_once_fire_in_pages() {
    const SAGAS: usize = 700;
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 10_000).await;
    system.definitions.load(&source("bench_saga"), 0).await.unwrap();
    let starts: Vec<_> = of_shard_0(&mut system, SAGAS).into_iter().map(|(_, start)| start).collect();
    system.queue(&starts).await;
    system.run_until_idle().await;
    system.clock.advance(10_000);
    let now_ms = system.clock.now_ms();
    let mut left = vec![due(&system, now_ms).await];
    assert_eq!(left, [SAGAS]);
    while left.last() != Some(&0) {
        assert_eq!(system.shards[0].turn().await, Turn::Worked, "{left:?}");
        left.push(due(&system, now_ms).await);
    }
    let pages: Vec<usize> = left.windows(2).map(|pair| pair[0] - pair[1]).collect();
    assert!(pages.len() >= 3 && pages.iter().all(|page| *page <= 256), "{pages:?}");
}

async fn due(system: &System, now_ms: i64) -> usize {
    let due = persist::load_due(&*system.store, 0, 10_000).await.unwrap();
    due.iter().filter(|(_, due)| *due <= now_ms).count()
}

/// Ten thousand sagas wait on one silent participant: one ask, and its answer wakes all of them, a page at a time.
#[tokio::test]
async fn z07_a_silent_participant_gets_one_ask_and_its_answer_wakes_all() {
    const SAGAS: usize = 10_000;
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 2 * SAGAS).await;
    system.definitions.load(&source("bench_saga"), 0).await.unwrap();
    let sagas = of_shard_0(&mut system, SAGAS);
    system.queue(&sagas.iter().map(|(_, start)| start.clone()).collect::<Vec<_>>()).await;
    system.run_until_idle().await;
    assert_eq!(commands(&system).await, (SAGAS, 0));

    // All timers of the wave fire, one ask goes out.
    system.clock.advance(10_000);
    system.run_until_idle().await;
    assert_eq!((due(&system, system.clock.now_ms()).await, commands(&system).await), (0, (SAGAS, 1)));

    // The first reply to the command itself comes from the head of the queue: no reason to ask about the others.
    let oldest = asked(&system).await.remove(0);
    let reply = |system: &System, id: String, saga: SagaId, verdict: Verdict| {
        let effect_id =
            EffectId { saga, step: "reserve".into(), item: String::new(), direction: Direction::Do, round: 0 };
        system.message(Topic::Progress, saga, id, InputBody::Reply(Reply { effect_id, verdict }))
    };
    let head = reply(&system, oldest.to_string(), oldest.saga, Verdict::Done { data: json!({}) });
    system.queue(&[head]).await;
    system.run_until_idle().await;
    assert_eq!(commands(&system).await.1, 1);

    // The answer to the ask comes from its end: what is not answered by then is lost, and each asks for itself.
    let answer = reply(&system, Envelope::answer_id(&oldest), oldest.saga, Verdict::Done { data: json!({}) });
    system.queue(&[answer]).await;
    system.run_until_idle().await;
    assert_eq!(commands(&system).await, (SAGAS + 1, SAGAS), "the oldest goes on, each other one asks, once");
    system.clock.advance(1);
    system.run_until_idle().await;
    assert_eq!(commands(&system).await, (SAGAS + 1, SAGAS));
}

/// More timers than a page holds, and a deadline before the last of the page: it is not passed over.
#[tokio::test]
async fn z07_a_deadline_is_met_beside_more_timers_than_a_page_has() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 1_000).await;
    for source in [source("bench_saga"), odd_job()] {
        system.definitions.load(&source, 0).await.unwrap();
    }
    let mut numbers = 0..;
    let mut listening = async |system: &mut System, count: usize| {
        let starts = numbers.by_ref().map(|n| system.start("odd_job", job(&format!("J-{n}"))));
        let starts: Vec<_> = starts.filter(|(_, start)| start.partition == 0).take(count).collect();
        let (sagas, starts): (Vec<_>, Vec<_>) = starts.into_iter().unzip();
        system.queue(&starts).await;
        system.run_until_idle().await;
        let replies = sagas.iter().flat_map(|saga| ["make", "hint"].map(|step| (*saga, step)));
        let replies: Vec<_> = replies
            .map(|(saga, step)| system.message(Topic::Progress, saga, format!("{saga}:{step}"), done(saga, step)))
            .collect();
        system.queue(&replies).await;
        system.run_until_idle().await;
        sagas
    };
    let first = listening(&mut system, 1).await[0];
    system.clock.advance(5_000);
    listening(&mut system, 299).await;
    // The timers of what was answered fire early, and are armed again for the deadlines.
    system.clock.advance(11_000);
    system.run_until_idle().await;
    system.clock.advance(44_500);
    system.run_until_idle().await;
    let told = system.told().await;
    assert_eq!(told.iter().map(|alert| alert.saga).collect::<Vec<_>>(), [Some(first)], "its time is up");
}

/// A participant that stays silent holds up no ladder, and is asked again, once for all, only when the first ask is old.
#[tokio::test]
async fn z07_sagas_go_on_when_the_one_ask_is_not_answered() {
    const SAGAS: usize = 300;
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 2 * SAGAS).await;
    system.definitions.load(&source("bench_saga"), 0).await.unwrap();
    let mut starts: Vec<_> = of_shard_0(&mut system, SAGAS).into_iter().map(|(_, start)| start).collect();
    let late = starts.split_off(SAGAS / 2);
    system.queue(&starts).await;
    system.run_until_idle().await;
    system.clock.advance(10_000);
    system.run_until_idle().await;
    assert_eq!(commands(&system).await.1, 1);
    system.queue(&late).await;
    system.run_until_idle().await;
    system.clock.advance(10_000);
    system.run_until_idle().await;
    assert_eq!(commands(&system).await, (SAGAS + SAGAS / 2, 2), "those that were asked for have begun to send again");
    for _ in 0..200 {
        system.clock.advance(60_000);
        system.run_until_idle().await;
    }
    let phases = persist::count_in_motion(&*system.store, 0).await.unwrap();
    assert_eq!(phases, SAGAS, "each has come to the end of its ladder and gives back what it may have taken");
}

async fn sent(system: &System) -> Vec<Command> {
    let command = |message| match message {
        Message::Command(command) => Some(command),
        _ => None,
    };
    system.to_participants().await.into_iter().filter_map(command).collect()
}

/// Commands sent so far: those to be done, and asks.
async fn commands(system: &System) -> (usize, usize) {
    let sent = sent(system).await;
    let asks = sent.iter().filter(|command| command.kind == CommandKind::Ask).count();
    (sent.len() - asks, asks)
}

async fn asked(system: &System) -> Vec<EffectId> {
    let asks = sent(system).await.into_iter().filter(|command| command.kind == CommandKind::Ask);
    asks.map(|command| command.effect_id).collect()
}

/// Its last version, as a newer program would have stored it: what this one cannot read.
pub(crate) async fn damage_definition(system: &System, name: &str) {
    static DAMAGE: Statement = Statement {
        name: "test.damage",
        columns: &[Kind::Text, Kind::Text],
        sql: "with r(name, source) as ({rows}) update definition set source = r.source from r where definition.name = r.name \
              and definition.version = (select max(known.version) from definition known where known.name = r.name)",
    };
    let writes = vec![Write::exact(&DAMAGE, Rows::one([name.into(), "?".into()]))];
    system.store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
}

#[tokio::test]
async fn z17_a_hold_whose_saga_has_no_definition_is_not_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 100).await;
    system.definitions.load(&source("bench_saga"), 0).await.unwrap();
    let saga = system.begin("bench_saga", bench("U-1")).await;
    damage_definition(&system, "bench_saga").await;
    drop(system);
    let mut system = System::open(folder.path(), 100).await;
    let before = system.to_participants().await.len();
    let effect_id = EffectId { saga, step: "lock".into(), item: String::new(), direction: Direction::Do, round: 0 };
    let reply_to = ReplyTo { topic: Topic::Commands, partition: 0 };
    let asked = InputBody::Inquire { effect_id, reply_to };
    system.tell(saga, "i-1", asked.clone()).await;
    system.tell(saga, "i-2", asked).await;
    assert_eq!(system.to_participants().await.len(), before, "nobody may say that the hold is not wanted");
    let told = system.told().await;
    let told: Vec<_> = told.iter().map(|alert| (&*alert.kind, &*alert.number)).collect();
    assert_eq!(told, [("undefined", "U-1")], "told once");
    assert!(system.definitions.load(&source("bench_saga"), 0).await.is_ok(), "the same text brings it back");
    system.tell(saga, "reply", done(saga, "reserve")).await;
    assert_eq!(&*system.saga(saga).await.unwrap().status, "locking", "and the saga goes on");
}

/// More sagas that stand still than one page of timers has: they are in nobody's way.
#[tokio::test]
async fn due_sagas_of_an_unreadable_definition_starve_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 1_000).await;
    for source in [source("bench_saga"), odd_job()] {
        system.definitions.load(&source, 0).await.unwrap();
    }
    let jobs = (0..).map(|n| system.start("odd_job", job(&format!("J-{n}"))).1);
    let jobs: Vec<_> = jobs.filter(|start| start.partition == 0).take(300).collect();
    system.queue(&jobs).await;
    system.run_until_idle().await;
    system.clock.advance(1_000);
    let (healthy, start) = of_shard_0(&mut system, 1).remove(0);
    system.queue(&[start]).await;
    system.run_until_idle().await;
    damage_definition(&system, "odd_job").await;
    let now_ms = system.clock.now_ms();
    drop(system);

    let mut system = System::open(folder.path(), 1_000).await;
    system.clock.advance(now_ms - system.clock.now_ms() + 15_000);
    system.run_until_idle().await;
    let kinds: Vec<_> = system.commands(healthy).await.iter().map(|command| command.kind).collect();
    assert_eq!(kinds, [CommandKind::Do, CommandKind::Ask], "its timer has fired");
    assert_eq!(system.told().await.len(), 300, "people know of each of the others");
    system.definitions.load(&odd_job(), 0).await.unwrap();
    system.clock.advance(61_000);
    system.run_until_idle().await;
    let asks = sent(&system)
        .await
        .iter()
        .filter(|command| command.definition == "odd_job" && command.kind == CommandKind::Ask)
        .count();
    assert!(asks > 0, "their timers fire again once their definition is back");
}
