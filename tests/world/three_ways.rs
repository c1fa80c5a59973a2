//! Each step of each definition that we ship or teach: told twice, refused, its answer lost, unknown, undone twice, and
//! undone before it is done. Participants are the real ones on a real store; the post between them and the sagas plays
//! the case, and so do the outside parties. Whatever happens, the saga ends as its definition says and all books balance.

use super::fault::lock;
use super::ground::Grounds;
use super::journey::{Doing, Order, Shelf};
use super::run::World;
use super::story::{input, order, pays};
use super::system::SHARDS;
use endstate_events::{
    Actor, Command, CommandKind, Direction, EffectId, Envelope, Forward, Input, InputBody, Json, Message, Operation,
    Reply, SagaId, Topic, Verdict,
};
use endstate_outbox::Outgoing;
use endstate_participants::desk::Call;
use endstate_saga::control::Outcome;
use endstate_saga::definition::Source;
use endstate_saga::plan::{Plan, Refused, Step};
use futures_util::future::join_all;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What happens to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    /// Its command comes twice in a row, and once more after the end.
    Twice,
    /// It is refused, in its first round.
    Refused,
    /// Its first answer is lost; the saga asks.
    AnswerLost,
    /// The outside party has done it and does not know.
    Unknown,
    /// The saga gives it back; the undo comes twice in a row, and once more after the end.
    UndoneTwice,
    /// The saga gives it back while its command is under way; the command comes after the end.
    UndoneFirst,
}

impl Case {
    const ALL: [Self; 6] =
        [Self::Twice, Self::Refused, Self::AnswerLost, Self::Unknown, Self::UndoneTwice, Self::UndoneFirst];

    fn applies(self, step: &Step) -> bool {
        match self {
            Self::Twice | Self::Refused | Self::AnswerLost => true,
            Self::Unknown => is_outside(&step.call.participant, &step.call.action),
            Self::UndoneTwice | Self::UndoneFirst => step.undo.is_some(),
        }
    }

    /// How the saga must end.
    fn ends(self, plan: &Plan, step: &Step) -> Outcome {
        let done = if plan.is_reversal(step.stage) { Outcome::Reversed } else { Outcome::Completed };
        match self {
            Self::Twice | Self::AnswerLost | Self::Unknown => done,
            // Only a step after the pivot says what its refusal means.
            Self::UndoneTwice | Self::UndoneFirst if step.refused == Refused::Compensate => Outcome::Cancelled,
            Self::UndoneTwice | Self::UndoneFirst => Outcome::Reversed,
            Self::Refused if step.best_effort => Outcome::Completed,
            Self::Refused => match step.refused {
                Refused::Compensate => Outcome::Cancelled,
                Refused::Reverse => Outcome::Reversed,
                // A person tries again, and then it is done.
                Refused::Park => done,
                Refused::Skip => Outcome::Completed,
            },
        }
    }
}

fn is_outside(participant: &str, action: &str) -> bool {
    match participant {
        "stock" | "coupon" | "points" | "returns" | "bench" => false,
        "payment" => matches!(action, "open" | "refund"),
        _ => true,
    }
}

/// How an outside party answers one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plays {
    Honestly,
    Refuses,
    /// Does it, and does not know that it did.
    Forgets,
}

/// What carries messages between sagas and participants, and plays a case on one step.
#[derive(Debug)]
pub(crate) struct Post {
    definition: String,
    step: String,
    case: Case,
    /// Just before an answer of this step arrives, an operator has the saga give back.
    turns_at: Option<String>,
    /// Sagas of the definition.
    sagas: BTreeSet<SagaId>,
    /// Effects to whose first command, call or answer something happened.
    met: BTreeSet<EffectId>,
    /// Undos by which a participant was made to refuse; their sagas know nothing of them.
    forged: BTreeSet<EffectId>,
    asked: usize,
    turned: bool,
    /// Comes when all is over.
    late: Vec<Outgoing>,
}

impl Post {
    fn new(definition: &str, plan: &Plan, step: &Step, case: Case) -> Self {
        let turns_at = match case {
            Case::UndoneTwice => Some(step.name.to_string()),
            // A reversal needs something to reverse.
            _ if plan.is_reversal(step.stage) => Some("award_points".to_owned()),
            _ => None,
        };
        Self {
            definition: definition.to_owned(),
            step: step.name.to_string(),
            case,
            turns_at,
            sagas: BTreeSet::new(),
            met: BTreeSet::new(),
            forged: BTreeSet::new(),
            asked: 0,
            turned: false,
            late: Vec::new(),
        }
    }

    /// What arrives instead of a message.
    pub(crate) fn pass(&mut self, message: Outgoing) -> Vec<Outgoing> {
        let envelope = Arc::clone(&message.envelope);
        match &envelope.message {
            Message::Command(command) if command.definition == self.definition => {
                self.sagas.insert(command.saga());
                if command.effect_id.step == self.step { self.command(message, command) } else { vec![message] }
            }
            Message::Input(Input { body: InputBody::Reply(reply), .. })
                if reply.effect_id.direction == Direction::Do && self.sagas.contains(&reply.effect_id.saga) =>
            {
                self.answer(message, &reply.effect_id)
            }
            Message::Input(Input { body: InputBody::Reply(reply), .. }) if self.forged.remove(&reply.effect_id) => {
                Vec::new()
            }
            _ => vec![message],
        }
    }

    fn command(&mut self, message: Outgoing, command: &Command) -> Vec<Outgoing> {
        let id = command.effect_id.clone();
        match (self.case, command.kind) {
            (Case::Twice, CommandKind::Do) | (Case::UndoneTwice, CommandKind::Undo) => {
                self.met.insert(id);
                self.late.push(message.clone());
                vec![message.clone(), message]
            }
            (Case::Refused, CommandKind::Do) if id.round == 0 => {
                self.forged.insert(EffectId { direction: Direction::Undo, ..id.clone() });
                self.met.insert(id);
                refused(message, command)
            }
            (Case::UndoneFirst, CommandKind::Do) => {
                let turned = self.turn_back(&message, command.saga());
                if self.met.insert(id) {
                    self.late.push(message);
                }
                turned
            }
            (Case::AnswerLost, CommandKind::Ask) => {
                self.asked += 1;
                vec![message]
            }
            _ => vec![message],
        }
    }

    fn answer(&mut self, message: Outgoing, effect_id: &EffectId) -> Vec<Outgoing> {
        let turns = self.turns_at.as_ref() == Some(&effect_id.step);
        let mut arrives = if turns { self.turn_back(&message, effect_id.saga) } else { Vec::new() };
        let loses = self.case == Case::AnswerLost && effect_id.step == self.step;
        if !(loses && self.met.insert(effect_id.clone())) {
            arrives.push(message);
        }
        arrives
    }

    fn turn_back(&mut self, beside: &Outgoing, saga: SagaId) -> Vec<Outgoing> {
        if std::mem::replace(&mut self.turned, true) {
            return Vec::new();
        }
        let actor = Actor { subject: "olga".to_owned(), role: "operator".to_owned() };
        let body = InputBody::Operate { operation: Operation::Compensate, reason: "the case".to_owned(), actor };
        let message = Message::Input(Input { saga, body });
        let (id, key) = (format!("{saga}/turn-back"), saga.to_string());
        let envelope = Envelope { id, key, message, ..Envelope::clone(&beside.envelope) };
        vec![Outgoing { topic: Topic::Progress, partition: saga.slot().partition(SHARDS), envelope: envelope.into() }]
    }

    /// How the outside party takes a call.
    pub(crate) fn plays(&mut self, call: &Call) -> Plays {
        let command = &*call.command;
        let ours = command.definition == self.definition && command.effect_id.step == self.step;
        match self.case {
            _ if !ours || command.kind != CommandKind::Do || command.effect_id.round > 0 => Plays::Honestly,
            Case::Refused => Plays::Refuses,
            Case::Unknown if self.met.insert(command.effect_id.clone()) => Plays::Forgets,
            _ => Plays::Honestly,
        }
    }
}

/// Has the participant refuse a command. Those that keep holds refuse what was undone before.
fn refused(message: Outgoing, command: &Command) -> Vec<Outgoing> {
    let with = |said: Message| {
        let envelope = Envelope { message: said, ..Envelope::clone(&message.envelope) };
        Outgoing { envelope: envelope.into(), ..message.clone() }
    };
    match (command.participant.as_str(), command.action.as_str()) {
        ("stock" | "coupon" | "points" | "returns", _) => {
            let (effect_id, with_before) = (command.effect_id.clone(), command.with.clone());
            let undo = Command {
                effect_id: EffectId { direction: Direction::Undo, ..effect_id.clone() },
                kind: CommandKind::Undo,
                of: Some(Forward { effect_id, with: with_before, reply: Json::Null }),
                ..command.clone()
            };
            vec![with(Message::Command(undo)), message]
        }
        ("bench", _) => vec![with(Message::Command(Command { with: json!({ "fail": true }), ..command.clone() }))],
        // The book refuses only what contradicts it for ever; this refusal is a passing one.
        ("payment", "book") => {
            let verdict = Verdict::Refused { code: "payment.conflict".to_owned(), detail: String::new() };
            let reply = Reply { effect_id: command.effect_id.clone(), verdict };
            let saga = command.saga();
            let said = with(Message::Input(Input { saga, body: InputBody::Reply(reply) }));
            vec![Outgoing { topic: Topic::Progress, partition: saga.slot().partition(SHARDS), ..said }]
        }
        // The outside party itself refuses, see `plays`.
        _ => vec![message],
    }
}

/// The order in whose course a step of a definition is met.
fn story(definition: &str, step: &str) -> Order {
    let made = |definition: &'static str, input: Json| {
        let number = "O-1".to_owned();
        Order { definition, number, input, ..order("O-1", "ann", 0, Vec::new()) }
    };
    match definition {
        "bench_saga" => made("bench_saga", json!({ "number": "O-1", "fail_at": "" })),
        "gift_order" => {
            made("gift_order", json!({ "order_no": "O-1", "user_id": "ann", "sku": "tea", "paper": "gold" }))
        }
        "flash_sale_order" | "refund_order" | "refund_payment" => {
            let lines = json!([
                { "line_no": "0", "sku": "tea", "quantity": 2, "price_minor": 20_000 },
                { "line_no": "1", "sku": "cup", "quantity": 1, "price_minor": 10_000 },
            ]);
            let whole = json!([{ "line_no": "0", "quantity": 2 }, { "line_no": "1", "quantity": 1 }]);
            let then = match definition {
                "refund_order" => {
                    Some((120_000, Doing::Refund { refund_no: "R-1".to_owned(), lines: whole, needs_approval: false }))
                }
                "refund_payment" => {
                    Some((60_000, Doing::Pay { wrong_by: 0, currency: "CNY", late: true, callbacks: 2 }))
                }
                _ => None,
            };
            let mut order = order("O-1", "ann", 100, std::iter::once((0, pays(2))).chain(then).collect());
            order.input = input("O-1", "ann", 100);
            order.input["lines"] = lines;
            order.input["coupon_id"] = json!("C-1");
            order.input["stock_strategy"] = json!(match step {
                "deduct_stock" => "at_order",
                "take_stock" => "at_payment",
                _ => "reserve",
            });
            order
        }
        other => panic!("no story for definition {other}: tell one in which each of its steps is met"),
    }
}

/// Plays one case; an error says what is wrong.
async fn play(grounds: &dyn Grounds, definition: &str, step: &Step, case: Case) -> Result<(), String> {
    let loaded = grounds.definitions().active(definition).expect("it is loaded");
    let shelf = Shelf {
        units: vec![("tea".to_owned(), 50, 0), ("cup".to_owned(), 50, 0)],
        users: vec![("ann".to_owned(), 1_000)],
        coupons: vec![("C-1".to_owned(), "ann".to_owned())],
    };
    let orders = vec![story(definition, &step.name)];
    let mut world = World::calm(shelf, orders, (4096, None), grounds.fresh().await).await;
    world.open_shop().await;
    lock(&world.faults).post = Some(Post::new(definition, loaded.plan(), step, case));
    let open = world.quiet().await;
    let mut checked = world.check(&open).await;
    let late = lock(&world.faults).post.as_mut().map(|post| std::mem::take(&mut post.late)).unwrap_or_default();
    if checked.is_ok() && !late.is_empty() {
        world.system.produce(late).await;
        let open = world.quiet().await;
        checked = world.check(&open).await;
    }
    // Its refusal is skipped, so the coupon stays used: the one thing that the world's books do not expect.
    let skipped = (definition, &*step.name, case) == ("refund_order", "return_coupon", Case::Refused);
    match checked {
        Err(fault) if skipped && fault.text == "C-1 is Some(\"used\"), used by 0 orders" => {}
        Err(fault) => {
            let trace = match fault.saga {
                Some(saga) => world.trace(saga).await,
                None => String::new(),
            };
            return Err(format!("{}\n{}\n{trace}", fault.text, world.journal.join("\n")));
        }
        Ok(()) => {}
    }
    let books = endstate_participants::books::read(&*world.system.store()).await.expect("books can be read");
    if let Some(book) = books.iter().find(|book| !book.balanced || book.held != 0) {
        return Err(format!("a book does not balance: {book:?}"));
    }
    let ended: Vec<SagaId> = {
        let faults = lock(&world.faults);
        let post = faults.post.as_ref().expect("it was put there");
        if post.met.is_empty() || (case == Case::AnswerLost && post.asked == 0) {
            return Err(format!("the case was not met: {post:?}"));
        }
        post.sagas.iter().copied().collect()
    };
    let expected = case.ends(loaded.plan(), step);
    for stored in
        endstate_orchestrator::persist::load_sagas(&*world.system.store(), &ended).await.expect("they are read")
    {
        if stored.saga.control.outcome() != Some(expected) {
            let trace = world.trace(stored.saga.id).await;
            return Err(format!("it ended as {:?} instead of {expected:?}\n{trace}", stored.saga.control.outcome()));
        }
    }
    Ok(())
}

/// The definitions of a folder, by name.
fn sources(folder: &str) -> Vec<(String, Source)> {
    let entries = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).expect("the folder is there");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    paths.sort();
    let named = |path: &PathBuf| {
        let source = Source::read(path).unwrap_or_else(|fault| panic!("{fault}"));
        let name = source.text.lines().find_map(|line| line.strip_prefix("saga: ")).expect("it has a name").to_owned();
        (name, source)
    };
    paths.iter().map(named).collect()
}

/// Plays every case of every step of every definition, side by side on as many grounds as there are.
pub(crate) async fn play_all(all: &[&dyn Grounds]) {
    let mut cases = Vec::new();
    for (name, source) in ["orchestrator/sagas", "docs/tutorial"].into_iter().flat_map(sources) {
        for definitions in all.iter().map(|grounds| grounds.definitions()) {
            if definitions.active(&name).is_none() {
                definitions.load(&source, 0).await.unwrap_or_else(|fault| panic!("{name}: {fault:?}"));
            }
        }
        let loaded = all[0].definitions().active(&name).expect("it was loaded");
        for step in &loaded.plan().steps {
            let applying = Case::ALL.into_iter().filter(|case| case.applies(step));
            cases.extend(applying.map(|case| (name.clone(), step.clone(), case)));
        }
    }
    assert!(cases.len() >= 100, "only {} cases", cases.len());
    let cases = &cases;
    let lanes = all.iter().enumerate().map(|(lane, grounds)| async move {
        for (name, step, case) in cases.iter().skip(lane).step_by(all.len()) {
            if let Err(fault) = play(*grounds, name, step, *case).await {
                panic!("definition {name}, step {}, case {case:?}: {fault}", step.name);
            }
        }
    });
    join_all(lanes).await;
}
