//! Requests that are sent again under their id, told as stories.

use crate::control::Outcome;
use crate::decide::Denied;
use crate::toy::{Run, Toy};
use endstate_events::{Actor, ForcedEnd, InputBody, Operation};

fn retried(by: &str) -> InputBody {
    let actor = Actor { subject: by.into(), role: "operator".into() };
    InputBody::Operate { operation: Operation::Retry, reason: "looked at it".into(), actor }
}

#[test]
fn a_request_sent_again_is_answered_alike_and_another_one_under_its_id_is_refused() {
    let mut run = Run::start(Toy::order(1));
    run.done("hold/0").bury().input("k-0", retried("olga"));
    assert_eq!((run.is_parked(), run.last.denied.clone()), (false, None));
    let before = (run.saga.clone(), run.events.len());
    run.input("k-0", retried("olga"));
    assert_eq!((&run.last.denied, run.last.effects.len()), (&None, 0), "taken, as the first time");
    run.input("k-0", retried("otto"));
    assert_eq!(run.last.denied, Some(Denied::KeyTaken));
    assert_eq!((run.saga.clone(), run.events.len()), before, "and nothing more has happened");

    // The end is no excuse, and only so many are remembered.
    run.input("end", {
        let actor = Actor { subject: "olga".into(), role: "operator".into() };
        let operation = Operation::Force { end: ForcedEnd::Completed };
        InputBody::Operate { operation, reason: "by hand".into(), actor }
    });
    assert_eq!(run.saga.control.outcome(), Some(Outcome::Forced));
    run.input("k-0", retried("olga"));
    assert_eq!(run.last.denied, None);
    run.input("k-1", retried("olga"));
    assert_eq!(run.last.denied, Some(Denied::Ended("forced")));

    let mut run = Run::start(Toy::order(1));
    for n in 0..10 {
        run.bury().input(&format!("k-{n}"), retried("olga"));
    }
    let known: Vec<_> = run.saga.data.requests.iter().map(|request| &*request.input).collect();
    assert_eq!(known, ["k-2", "k-3", "k-4", "k-5", "k-6", "k-7", "k-8", "k-9"]);
}
