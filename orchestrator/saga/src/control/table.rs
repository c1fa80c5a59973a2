//! The transition table as a page: `docs/state-machine.md` is printed from the transition itself, and a test fails when
//! it is stale.

use super::react::Answer;
use super::{
    Conditions, Contradiction, Control, ControlEvent, ControlInput, Course, Forward, Outcome, Reaction, Run, Undo,
    WaitState, advance, apply, react,
};
use crate::plan::{
    AfterPivot, AtDeadline, Call, Ends, EvalError, EventRule, Mismatch, Pivot, Plan, Reason, Refused, Retry, Stage,
    Step, Wait,
};
use endstate_events::Direction;
use std::fmt::{Debug, Write};
use std::sync::Arc;

const FORWARDS: [Forward; 5] =
    [Forward::InFlight, Forward::Exhausted, Forward::Done, Forward::Refused, Forward::Abandoned];
const UNDOS: [Undo; 5] = [Undo::None, Undo::InFlight, Undo::Done, Undo::Refused, Undo::Abandoned];
const ANSWERS: [Answer; 4] = [Answer::Done, Answer::Refused, Answer::Unknown, Answer::NeverSeen];
const WAITS: [WaitState; 9] = [
    WaitState::NotOpen,
    WaitState::Kept,
    WaitState::Open,
    WaitState::Asked,
    WaitState::Taken,
    WaitState::Passed,
    WaitState::Skipped,
    WaitState::ParkedDeadline,
    WaitState::ParkedMismatch,
];
const COURSES: [Course; 6] = [
    Course::Forward,
    Course::Compensating,
    Course::Settling,
    Course::Reversing,
    Course::Returning,
    Course::Ended(Outcome::Completed),
];

/// The page.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(INTRODUCTION);
    page += "\n## A reply to a step\n\nThe round answered is the present one; an older round is `OldRound`, always.\n";
    answers(&mut page, &FORWARDS, |forward| (forward, Undo::None), Direction::Do, Course::Forward);
    page += "\nOnce its undo was sent, and after the end:\n";
    answers(&mut page, &FORWARDS, |forward| (forward, Undo::InFlight), Direction::Do, Course::Compensating);
    answers(&mut page, &FORWARDS, |forward| (forward, Undo::None), Direction::Do, ended());
    page += "\n## A reply to an undo\n";
    page += "\nOne that was never sent, as far as anybody knows: the saga had turned back in a history that is lost.\n";
    answers(&mut page, &FORWARDS, |forward| (forward, Undo::None), Direction::Undo, Course::Forward);
    page += "\nOne that was sent:\n";
    answers(&mut page, &UNDOS, |undo| (Forward::Done, undo), Direction::Undo, Course::Compensating);
    page += "\nAfter the end:\n";
    answers(&mut page, &UNDOS, |undo| (Forward::Done, undo), Direction::Undo, ended());
    waits(&mut page);
    people(&mut page);
    follows(&mut page);
    page
}

const INTRODUCTION: &str = "# The state machine

Printed from the transition itself (`endstate_saga::control`); a test fails when this page is stale. A cell names the
events that an input causes at once; `Ignored` and `Rejected` say why there are none. What then follows by itself is in
the last section. `Discrepant` changes nothing, records a discrepancy and alerts.
";

fn ended() -> Course {
    Course::Ended(Outcome::Completed)
}

/// A plan with everything that the table distinguishes: a step before the pivot, a wait that is the pivot, a step after
/// it, one in the reversal.
fn plan(refused: Refused, best_effort: bool, mismatch: Mismatch, at_deadline: AtDeadline, asks: bool) -> Plan {
    let call = Call { participant: "p".into(), action: "a".into() };
    let retry = Retry { timeout_ms: 1, ask_after_ms: 1, waits_ms: Arc::new([1]) };
    let step = |name: &str, stage| Step {
        name: name.into(),
        stage,
        call: call.clone(),
        undo: Some(call.clone()),
        refused,
        best_effort,
        of: None,
        each: false,
        retry: retry.clone(),
        parked_status: None,
    };
    let stage = |name: &str, steps| Stage { name: name.into(), status: None, steps, wait: None, conditional: false };
    let ask = asks.then(|| call.clone());
    let wait = Wait { event: 0, conditional: true, mismatch, at_deadline, ask, retry: retry.clone() };
    let reason = |name: &str, after_pivot| Reason { name: name.into(), role: "owner".into(), after_pivot };
    let end: Arc<str> = "end".into();
    Plan {
        definition: "table".into(),
        version: 1,
        stages: vec![
            stage("before", 0..1),
            Stage { wait: Some(wait), ..stage("pivot", 1..1) },
            stage("after", 1..2),
            stage("reverse", 2..3),
        ],
        forward_stages: 3,
        steps: vec![step("before", 0), step("after", 2), Step { undo: None, ..step("reverse", 3) }],
        pivot: Pivot::Stage(1),
        events: vec![EventRule { name: "paid".into(), late: true }],
        reasons: vec![reason("reverse", AfterPivot::Reverse), reason("refuse", AfterPivot::Refuse)],
        ends: Ends { completed: end.clone(), cancelled: end.clone(), reversed: end.clone(), forced: end },
    }
}

fn usual(refused: Refused) -> Plan {
    plan(refused, false, Mismatch::Late, AtDeadline::Cancel { reason: 0 }, true)
}

/// One run of step 0 in the given state.
fn with_run(course: Course, forward: Forward, undo: Undo) -> Control {
    let entered = ControlEvent::StageEntered { stage: 0, counts: vec![(0, 1)] };
    let mut control = Control { course, ..apply(Control::default(), &entered) };
    control.runs_mut()[0] = Run { forward, undo, ..control.runs()[0] };
    control
}

fn answers<S: Debug + Copy>(
    page: &mut String,
    states: &[S],
    run: impl Fn(S) -> (Forward, Undo),
    direction: Direction,
    course: Course,
) {
    let plan = usual(Refused::Compensate);
    header(page, &format!("{} ({course:?})", if direction == Direction::Do { "step" } else { "undo" }), &ANSWERS);
    for state in states {
        let (forward, undo) = run(*state);
        let control = with_run(course, forward, undo);
        let cells = ANSWERS.map(|answer| ControlInput::Reply { run: 0, direction, round: 0, answer });
        row(page, state, cells.map(|input| shown(&react(&plan, &control, input))));
    }
}

fn waits(page: &mut String) {
    *page += "\n## Events and deadlines of a wait\n\nThe saga goes forward and the wait is its pivot.\n";
    header(page, &"wait", &["event matches", "event does not match", "deadline", "deadline, no ask", "ask unanswered"]);
    let event = |matches| ControlInput::Event { event: 0, matches };
    for wait in WAITS {
        let control = waiting(wait);
        let asking = usual(Refused::Compensate);
        let plain = plan(Refused::Compensate, false, Mismatch::Late, AtDeadline::Cancel { reason: 0 }, false);
        let cells = [
            react(&asking, &control, event(true)),
            react(&asking, &control, event(false)),
            react(&asking, &control, ControlInput::Deadline { stage: 1 }),
            react(&plain, &control, ControlInput::Deadline { stage: 1 }),
            react(&asking, &control, ControlInput::Unanswered { stage: 1 }),
        ];
        row(page, &wait, cells.map(|reaction| shown(&reaction)));
    }
    *page += "\nThe other ways that a definition can choose, on an open wait:\n";
    header(page, &"declared", &["event does not match", "deadline"]);
    for (mismatch, at_deadline) in [(Mismatch::Park, AtDeadline::Park), (Mismatch::Late, AtDeadline::Next)] {
        let plan = plan(Refused::Compensate, false, mismatch, at_deadline, false);
        let control = waiting(WaitState::Open);
        let inputs = [event(false), ControlInput::Deadline { stage: 1 }];
        let cells = inputs.map(|input| shown(&react(&plan, &control, input)));
        row(page, &format_args!("mismatch {mismatch:?}, at_deadline {at_deadline:?}"), cells);
    }
}

fn waiting(wait: WaitState) -> Control {
    let mut control = with_run(Course::Forward, Forward::Done, Undo::None);
    control.next = 2;
    control.waits[1] = wait;
    control
}

fn people(page: &mut String) {
    *page += "\n## Cancels, operators, failed expressions, dead letters\n\n";
    *page += "Nothing is parked but where the row says so; `cancel` names a reason that reverses after the pivot, ";
    *page += "`cancel (refuse)` one that does not hold there.\n";
    let inputs = [
        ControlInput::Cancel { reason: 0 },
        ControlInput::Cancel { reason: 1 },
        ControlInput::Retry,
        ControlInput::Compensate,
        ControlInput::ForceCompleted,
        ControlInput::ForceCancelled,
        ControlInput::Fault,
        ControlInput::DeadLetter,
    ];
    let names = [
        "cancel",
        "cancel (refuse)",
        "retry",
        "compensate",
        "force completed",
        "force cancelled",
        "expression fails",
        "dead letter",
    ];
    header(page, &"saga", &names);
    let plan = usual(Refused::Park);
    let past = |control: Control| Control { next: 3, waits: waiting(WaitState::Taken).waits, ..control };
    let refused = with_run(Course::Forward, Forward::Refused, Undo::None);
    let mut contradicted = with_run(Course::Forward, Forward::Done, Undo::None);
    contradicted.runs_mut()[0].contradiction = Contradiction::Open;
    let states = COURSES.map(|course| (format!("{course:?}"), with_run(course, Forward::Done, Undo::None)));
    let special = [
        ("Forward, past the pivot".to_owned(), past(with_run(Course::Forward, Forward::Done, Undo::None))),
        ("Forward, parked on a refusal".to_owned(), refused),
        ("Forward, parked on a contradiction".to_owned(), contradicted),
        (
            "Compensating, parked on a refused undo".to_owned(),
            with_run(Course::Compensating, Forward::Done, Undo::Refused),
        ),
        ("Forward, parked on a fault".to_owned(), Control { faulted: true, ..waiting(WaitState::Open) }),
        (
            "Compensating, parked on a fault".to_owned(),
            Control { faulted: true, ..with_run(Course::Compensating, Forward::Done, Undo::InFlight) },
        ),
        (
            "Compensating, forced".to_owned(),
            Control { forced: true, ..with_run(Course::Compensating, Forward::Done, Undo::InFlight) },
        ),
        ("Forward, parked by a deadline".to_owned(), waiting(WaitState::ParkedDeadline)),
        ("Forward, parked by a mismatch".to_owned(), waiting(WaitState::ParkedMismatch)),
    ];
    for (name, control) in states.iter().chain(&special) {
        row(page, &format_args!("{name}"), inputs.map(|input| shown(&react(&plan, control, input))));
    }
    *page += "\nA ladder that is used up:\n";
    header(page, &"saga", &["step in flight", "undo in flight", "undo in flight, forced"]);
    for course in COURSES {
        let step = with_run(course, Forward::InFlight, Undo::None);
        let undo = with_run(course, Forward::Done, Undo::InFlight);
        let cells = [step, undo, Control { forced: true, ..undo }];
        let cells = cells.map(|control| shown(&react(&plan, &control, ControlInput::Exhausted { run: 0 })));
        row(page, &course, cells);
    }
}

/// Every condition holds; every step has one item.
struct Always;

impl Conditions for Always {
    fn stage_applies(&self, _: usize) -> Result<bool, EvalError> {
        Ok(true)
    }
    fn items(&self, _: usize) -> Result<u8, EvalError> {
        Ok(1)
    }
    fn step_applies(&self, _: usize) -> Result<bool, EvalError> {
        Ok(true)
    }
    fn kept_matches(&self, _: usize) -> Result<bool, EvalError> {
        Ok(true)
    }
}

fn follows(page: &mut String) {
    *page += "\n## What follows by itself\n\n`rests` means that the saga awaits an answer, an event or a person.\n";
    header(page, &"a step is", &["before the pivot", "after it", "in the reversal"]);
    let rules = [
        ("refused: compensate", Refused::Compensate, false, Forward::Refused),
        ("refused: reverse", Refused::Reverse, false, Forward::Refused),
        ("refused: park", Refused::Park, false, Forward::Refused),
        ("refused: skip", Refused::Skip, false, Forward::Refused),
        ("refused, best_effort", Refused::Compensate, true, Forward::Refused),
        ("exhausted", Refused::Compensate, false, Forward::Exhausted),
        ("exhausted, best_effort", Refused::Compensate, true, Forward::Exhausted),
        ("done", Refused::Compensate, false, Forward::Done),
    ];
    for (name, refused, best_effort, forward) in rules {
        let plan = plan(refused, best_effort, Mismatch::Late, AtDeadline::Next, false);
        let cells = [0u8, 1, 2].map(|step| chain(&plan, at_step(step, forward)));
        row(page, &format_args!("{name}"), cells);
    }
    *page += "\nGiving back:\n";
    header(page, &"saga", &["undo not sent", "undo in flight", "undo done", "undo refused", "nothing to undo"]);
    let plan = usual(Refused::Compensate);
    for course in [Course::Compensating, Course::Settling, Course::Returning] {
        let states = [Undo::None, Undo::InFlight, Undo::Done, Undo::Refused];
        let mut cells: Vec<String> =
            states.map(|undo| chain(&plan, with_run(course, Forward::Done, undo))).into_iter().collect();
        cells.push(chain(&plan, with_run(course, Forward::Refused, Undo::None)));
        row(page, &course, cells);
    }
}

/// The saga's only run is of this step, in this state.
fn at_step(step: u8, forward: Forward) -> Control {
    let mut control = with_run(Course::Forward, forward, Undo::None);
    control.runs_mut()[0].step = step;
    match step {
        0 => {}
        1 => {
            control.next = 3;
            control.waits[1] = WaitState::Taken;
        }
        _ => {
            control.next = 4;
            control.course = Course::Reversing;
        }
    }
    control
}

fn chain(plan: &Plan, mut control: Control) -> String {
    let mut names = vec![];
    while let Ok(Some(event)) = advance(plan, &control, &Always) {
        control = apply(control, &event);
        names.push(name(&event));
    }
    let parked = if control.is_parked(plan) { "rests, parked" } else { "rests" };
    if names.is_empty() { parked.to_owned() } else { names.join(", ") }
}

fn shown(reaction: &Reaction) -> String {
    match reaction {
        Reaction::Events(events) => events.iter().map(name).collect::<Vec<_>>().join(", "),
        Reaction::Ignored(why) => format!("Ignored: {why:?}"),
        Reaction::Rejected(why) => format!("Rejected: {why:?}"),
        Reaction::Discrepant => "Discrepant".to_owned(),
    }
}

/// The event's name in the code, and what distinguishes it.
fn name(event: &ControlEvent) -> String {
    if let ControlEvent::TurnedBack { reversal } = event {
        return format!("TurnedBack ({})", if *reversal { "reversal" } else { "compensation" });
    }
    if let ControlEvent::Ended { outcome } = event {
        return format!("Ended ({})", outcome.label());
    }
    format!("{event:?}").split(' ').next().unwrap_or_default().to_owned()
}

fn header(page: &mut String, first: &dyn std::fmt::Display, rest: &[impl Debug]) {
    let rest: Vec<_> = rest.iter().map(|name| format!("{name:?}").trim_matches('"').to_owned()).collect();
    let _ = write!(page, "\n| {first} | {} |\n|{}\n", rest.join(" | "), "---|".repeat(rest.len() + 1));
}

fn row(page: &mut String, first: &dyn Debug, cells: impl IntoIterator<Item = String>) {
    let cells: Vec<_> = cells.into_iter().collect();
    let _ = writeln!(page, "| {first:?} | {} |", cells.join(" | "));
}

#[cfg(test)]
mod tests {
    /// `ENDSTATE_BLESS=1 cargo test -p endstate-saga state_machine` writes the page anew.
    #[test]
    fn the_page_of_the_state_machine_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/state-machine.md");
        let page = super::markdown();
        if std::env::var_os("ENDSTATE_BLESS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == page, "docs/state-machine.md is stale: run the test with ENDSTATE_BLESS=1");
    }
}
