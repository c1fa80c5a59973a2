//! A participant that keeps every promise, and can be made to break each: every check must catch its own.

use super::checks::Trial;
use super::payload::Payload;
use super::promises::{Check, Finding};
use super::subject::{Builtin, Subject};
use async_trait::async_trait;
use endstate_events::{Action, Command, CommandKind, Json, Verdict};
use endstate_saga::definition::{BUILTIN, BUILTIN_NAME, load_catalogue};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// How it is broken.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Broken {
    Not,
    WrongData,
    Forgets,
    Races,
    NeverSeenIsRefused,
    AsksAreForgotten,
    TakesAnyBody,
    RefusesByMood,
    UndoesOnce,
    MakesAnew,
    NoTombstone,
    UndoesTheWholeSaga,
}

#[derive(Clone)]
struct Known {
    body: Option<Json>,
    verdict: Verdict,
}

struct Party {
    broken: Broken,
    known: Mutex<BTreeMap<String, Known>>,
    made: Mutex<u32>,
}

impl Party {
    fn new(broken: Broken) -> Self {
        Self { broken, known: Mutex::default(), made: Mutex::default() }
    }

    fn make(&self, command: &Command) -> Verdict {
        let mut made = self.made.lock().unwrap();
        *made += 1;
        match (&command.with["paper"], self.broken) {
            (Json::String(paper), Broken::RefusesByMood) if paper == "none" && made.is_multiple_of(2) => {
                Verdict::Refused { code: "later".to_owned(), detail: String::new() }
            }
            (Json::String(paper), _) if paper == "none" => {
                Verdict::Refused { code: "no_paper".to_owned(), detail: String::new() }
            }
            (_, Broken::WrongData) => Verdict::Done { data: json!({ "tag": *made }) },
            _ => Verdict::Done { data: json!({ "tag": format!("gift-{made}") }) },
        }
    }

    fn undo(&self, command: &Command, known: &mut BTreeMap<String, Known>) -> Verdict {
        let of = &command.of.as_ref().unwrap().effect_id;
        let wrapped = of.to_string();
        match self.broken {
            Broken::UndoesOnce if known.contains_key(&command.effect_id.to_string()) => {
                return Verdict::Refused { code: "undone".to_owned(), detail: String::new() };
            }
            Broken::MakesAnew => drop(known.remove(&wrapped)),
            Broken::UndoesTheWholeSaga => {
                let saga = of.saga.to_string();
                known.retain(|id, _| !id.starts_with(&saga));
            }
            Broken::NoTombstone => {}
            _ => {
                let verdict = Verdict::Refused { code: "released_before".to_owned(), detail: String::new() };
                known.entry(wrapped).or_insert(Known { body: None, verdict });
            }
        }
        Verdict::Done { data: json!({}) }
    }
}

#[async_trait]
impl Subject for Party {
    async fn tell(&self, command: &Command) -> Verdict {
        let id = command.effect_id.to_string();
        let body = json!([command.action, command.with, command.of.as_ref().map(|of| of.effect_id.to_string())]);
        let seen = self.known.lock().unwrap().get(&id).cloned();
        if self.broken == Broken::Races {
            // Who looks and then acts leaves room for another in between.
            tokio::task::yield_now().await;
        }
        let known = if self.broken == Broken::Races { seen } else { self.known.lock().unwrap().get(&id).cloned() };
        if command.kind == CommandKind::Ask {
            return match known {
                Some(_) if self.broken == Broken::AsksAreForgotten => Verdict::NeverSeen,
                Some(known) => known.verdict,
                None if self.broken == Broken::NeverSeenIsRefused => {
                    Verdict::Refused { code: "unknown".to_owned(), detail: String::new() }
                }
                None => Verdict::NeverSeen,
            };
        }
        let undo_again =
            command.kind == CommandKind::Undo && matches!(self.broken, Broken::UndoesOnce | Broken::UndoesTheWholeSaga);
        let forgets = matches!(self.broken, Broken::Forgets) && command.kind == CommandKind::Do;
        let moody = self.broken == Broken::RefusesByMood && command.with["paper"] == "none";
        if let Some(known) = known.filter(|_| !undo_again && !forgets && !moody) {
            let same = known.body.is_none_or(|before| before == body) || self.broken == Broken::TakesAnyBody;
            return if same { known.verdict } else { Verdict::unknown("conflict") };
        }
        let verdict = match command.kind {
            CommandKind::Undo => self.undo(command, &mut self.known.lock().unwrap()),
            CommandKind::Do | CommandKind::Ask => self.make(command),
        };
        self.known.lock().unwrap().insert(id, Known { body: Some(body), verdict: verdict.clone() });
        verdict
    }
}

fn wrap() -> Action {
    Action {
        with: json!({ "type": "object", "required": ["paper"], "properties": { "paper": { "enum": ["red", "gold"] } } }),
        reply: json!({ "type": "object", "required": ["tag"], "properties": { "tag": { "type": "string" } } }),
        undo: Some("unwrap".to_owned()),
        refusals: vec!["no_paper".to_owned(), "later".to_owned()],
        ..Action::default()
    }
}

async fn findings(subject: &dyn Subject, action: &Action) -> Vec<Finding> {
    let with = Payload::of_schema(&action.with);
    let trial = Trial {
        participant: "gift_wrap",
        name: "wrap",
        action,
        other: with.varied(&action.with),
        with,
        refused: Some(Payload(json!({ "paper": "none" }))),
        of: None,
        subject,
    };
    trial.run(|_| true).await
}

#[tokio::test]
async fn a_participant_that_keeps_its_promises_passes_every_check() {
    let found = findings(&Party::new(Broken::Not), &wrap()).await;
    assert_eq!(found.len(), Check::ALL.len());
    assert!(found.iter().all(|finding| finding.result == "ok"), "{found:#?}");
}

#[tokio::test]
async fn each_check_catches_who_breaks_its_promise() {
    for (broken, check) in [
        (Broken::WrongData, Check::Done),
        (Broken::Forgets, Check::Twice),
        (Broken::Races, Check::Concurrent),
        (Broken::NeverSeenIsRefused, Check::AskedBefore),
        (Broken::AsksAreForgotten, Check::AskedAfter),
        (Broken::TakesAnyBody, Check::Conflict),
        (Broken::RefusesByMood, Check::Refused),
        (Broken::UndoesOnce, Check::UndoneTwice),
        (Broken::MakesAnew, Check::ToldAfterUndo),
        (Broken::NoTombstone, Check::UndoneFirst),
        (Broken::UndoesTheWholeSaga, Check::OldRelease),
    ] {
        let found = findings(&Party::new(broken), &wrap()).await;
        let finding = found.iter().find(|finding| finding.check == check).unwrap();
        assert_eq!(finding.result, "failed", "{broken:?}: {found:#?}");
        assert!(finding.mend.is_some() && finding.said.is_some());
    }
}

#[tokio::test]
async fn the_built_in_participants_keep_their_promises() {
    let catalogue = load_catalogue([(BUILTIN_NAME, BUILTIN)]).unwrap();
    let mut failed = Vec::new();
    for participant in catalogue.participants.keys() {
        let args = super::VerifyArgs { participant: participant.clone(), ..Default::default() };
        let plans = super::plans(&args, &catalogue.participants[participant]).unwrap();
        let found = super::verified(&args, &plans, &Builtin::new(catalogue.clone())).await;
        assert!(found.iter().any(|finding| finding.result == "ok"), "{participant}");
        let broken = found.into_iter().filter(|finding| finding.result == "failed");
        failed.extend(broken.map(|finding| format!("{participant} {finding:?}")));
    }
    // The no-op of the benchmark remembers nothing, on purpose: a question finds it out.
    let (bench, others): (Vec<_>, Vec<_>) = failed.into_iter().partition(|finding| finding.starts_with("bench "));
    assert!(others.is_empty(), "{}", others.join("\n"));
    assert!(bench.iter().any(|finding| finding.contains("AskedAfter")), "{bench:#?}");
}
