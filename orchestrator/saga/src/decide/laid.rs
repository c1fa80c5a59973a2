//! Commands that were put aside, told as stories.

use crate::control::{Forward, Outcome};
use crate::event::{Event, Fact};
use crate::toy::{Run, Toy};
use endstate_events::{Direction, ForcedEnd, Operation, Verdict};

/// A participant's shard puts a command of the saga aside.
fn aside(run: &mut Run, step: &str, item: &str, direction: Direction) {
    let effect_id = run.effect_id(step, item, direction, 0);
    run.reply(effect_id, Verdict::put_aside("put aside: E5003: too old"));
}

/// What is sent while time passes, until no timer is left or for long.
fn sent_in_time(run: &mut Run) -> Vec<String> {
    let mut sent = Vec::new();
    for _ in 0..20 {
        if !run.tick() {
            break;
        }
        sent.extend(run.sent());
    }
    sent
}

#[test]
fn a_command_put_aside_parks_once_and_is_silent_while_others_ask() {
    let mut run = Run::start(Toy::order(2));
    aside(&mut run, "hold", "0", Direction::Do);
    assert!(run.is_parked());
    assert_eq!(run.alerts().len(), 1);
    assert!(run.alerts()[0].contains(":hold:0:do:0 went to the dead letters: put aside: E5003"), "{:?}", run.alerts());
    let version = run.saga.version;
    aside(&mut run, "hold", "0", Direction::Do);
    assert_eq!((run.saga.version, run.alerts().len()), (version, 0), "told once");
    let sent = sent_in_time(&mut run);
    assert!(sent.iter().any(|command| command == "do coupon#0"), "{sent:?}");
    assert!(!sent.iter().any(|command| command.contains("hold/0")), "{sent:?}");

    aside(&mut run, "hold", "1", Direction::Do);
    assert_eq!(run.alerts().len(), 0, "its ladder is used up by now: nobody awaits it");
}

#[test]
fn another_command_put_aside_is_another_fact() {
    let mut run = Run::start(Toy::order(2));
    aside(&mut run, "hold", "0", Direction::Do);
    aside(&mut run, "hold", "1", Direction::Do);
    assert_eq!(run.alerts().len(), 1);
    assert!(run.saga.data.runs[0].put_aside && run.saga.data.runs[1].put_aside);
    run.operate(Operation::Retry);
    assert_eq!(run.sent(), ["do hold/0#0", "do hold/1#0"], "both, under the ids they had");
}

#[test]
fn a_late_answer_counts_and_retry_sends_the_same_effect() {
    let mut run = Run::start(Toy::bench());
    aside(&mut run, "reserve", "", Direction::Do);
    run.done("reserve");
    assert!(run.is_parked() && run.saga.control.runs()[0].forward == Forward::Done, "its letter was sent again");
    run.operate(Operation::Retry);
    assert_eq!((run.is_parked(), run.sent()), (false, vec!["do lock#0".to_owned()]));

    aside(&mut run, "reserve", "", Direction::Do);
    assert_eq!((run.is_parked(), run.last.events.len()), (false, 0), "what is done is done");
    aside(&mut run, "lock", "", Direction::Do);
    run.operate(Operation::Retry);
    assert_eq!((run.is_parked(), run.sent()), (false, vec!["do lock#0".to_owned()]));
    assert_eq!(sent_in_time(&mut run).first().map(String::as_str), Some("ask lock#0"), "its ladder begins anew");
    aside(&mut run, "deduct", "", Direction::Do);
    assert!(!run.is_parked(), "never sent");
}

#[test]
fn what_was_put_aside_can_be_given_back() {
    let mut run = Run::start(Toy::bench());
    aside(&mut run, "reserve", "", Direction::Do);
    run.operate(Operation::Compensate);
    assert_eq!((run.is_parked(), run.sent()), (false, vec!["undo -reserve#0".to_owned()]), "it may have happened");
    aside(&mut run, "reserve", "", Direction::Undo);
    assert!(run.is_parked(), "an undo parks like any command");
    assert_eq!(sent_in_time(&mut run), Vec::<String>::new(), "no letter every five minutes");
    run.operate(Operation::Retry);
    assert_eq!(run.sent(), ["undo -reserve#0"]);
    run.done("-reserve");
    assert_eq!(run.saga.control.outcome(), Some(Outcome::Cancelled));
    aside(&mut run, "reserve", "", Direction::Undo);
    assert_eq!((run.last.events.len(), run.last.effects.len()), (0, 0), "an ended saga never changes");
}

#[test]
fn what_a_saga_can_do_without_parks_nothing() {
    let mut run = Run::start(Toy::order(1));
    run.done("hold/0").done("coupon").done("open").paid("p1", 7).done("confirm/0").done("book");
    aside(&mut run, "tell", "", Direction::Do);
    assert_eq!(run.saga.control.outcome(), Some(Outcome::Completed), "it is best effort");

    let mut run = Run::start(Toy::order(1));
    run.done("hold/0").done("coupon").done("open").paid("p1", 7);
    aside(&mut run, "book", "", Direction::Do);
    assert!(run.is_parked());
    run.operate(Operation::Compensate).done("confirm/0");
    aside(&mut run, "book", "", Direction::Do);
    assert_eq!(
        (run.is_parked(), run.sent()),
        (false, vec!["do refund#0".to_owned()]),
        "unknown, and the reversal goes on"
    );

    let mut run = Run::start(Toy::bench());
    run.done("reserve").cancel("user", "owner").operate(Operation::Force { end: ForcedEnd::Cancelled });
    run.effects.clear();
    for step in ["lock", "reserve"] {
        aside(&mut run, step, "", Direction::Undo);
    }
    assert_eq!(run.saga.control.outcome(), Some(Outcome::Forced), "under force nothing waits");
    let discrepancies = run.effects.iter().filter(|effect| matches!(effect, crate::effect::Effect::Discrepancy { .. }));
    assert_eq!(discrepancies.count(), 2);
}

#[test]
fn an_event_of_an_older_program_names_no_run() {
    let text = r#"{"at":1,"fact":{"dead_lettered":{"input":"i","reason":"r"}}}"#;
    let event: Event = serde_json::from_str(text).unwrap();
    assert_eq!(event.fact, Fact::DeadLettered { input: "i".into(), reason: "r".into(), run: None });
    assert_eq!(serde_json::to_string(&event).unwrap(), text);
}
