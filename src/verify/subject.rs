//! Whoever is verified, behind one call: tell a command, get the verdict. Nothing here knows how a participant works.

use async_trait::async_trait;
use endstate_events::{Catalogue, Command, CommandKind, Json, Lane, Verdict};
use endstate_participants::caller::Outside;
use endstate_participants::decide;
use endstate_participants::desk::{Desk, Job};
use endstate_participants::operation::{self, Line};
use endstate_participants::outside::HttpParticipant;
use serde_json::json;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// A participant under test.
#[async_trait]
pub(crate) trait Subject: Sync {
    /// Tells it a command, or asks; silence is unknown.
    async fn tell(&self, command: &Command) -> Verdict;
}

/// One over HTTP.
#[async_trait]
impl Subject for HttpParticipant {
    async fn tell(&self, command: &Command) -> Verdict {
        match command.kind {
            CommandKind::Ask => self.ask(command, Lane::Test).await,
            CommandKind::Do | CommandKind::Undo => self.make(command, Lane::Test).await,
        }
    }
}

/// A built-in one: its decisions, on a desk whose shelves are always stocked. What it calls outside is done at once.
pub(crate) struct Builtin {
    desk: Mutex<Desk>,
    catalogue: Catalogue,
}

impl Builtin {
    pub(crate) fn new(catalogue: Catalogue) -> Self {
        Self { desk: Mutex::default(), catalogue }
    }

    fn decide(&self, desk: &mut Desk, command: &Command) -> Verdict {
        let id = command.effect_id.to_string().into();
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis());
        let now_ms = i64::try_from(now_ms).unwrap_or(0);
        let job = Job { command, id: &id, lane: Lane::Live, shard: desk.shard, now_ms };
        if let Some(verdict) = decide::decide(desk, &job) {
            return verdict;
        }
        let action = self.catalogue.action(&command.participant, &command.action);
        let data = action.map_or(Json::Null, |action| action.example.clone());
        let answered = decide::answered(desk, &id, Verdict::Done { data });
        let unanswered = || Verdict::unknown("the call outside was not booked");
        answered.map_or_else(unanswered, |answered| answered.verdict)
    }

    /// Opens what the command wants to touch, as operators do.
    fn stock(&self, desk: &mut Desk, command: &Command) {
        let field = |name: &str| command.with.get(name).cloned().unwrap_or(Json::Null);
        let (action, with, id) = match command.participant.as_str() {
            "stock" => ("open", json!({ "unit": field("unit"), "quantity": 1_000_000 }), field("unit")),
            "coupon" => ("open", json!({ "coupon": field("coupon"), "user": field("user") }), field("coupon")),
            "points" => ("adjust", json!({ "user": field("user"), "delta": 1_000_000 }), field("user")),
            _ => return,
        };
        let Some(id) = id.as_str().filter(|_| command.kind == CommandKind::Do) else { return };
        let line = Line { participant: command.participant.clone(), action: action.to_owned(), with };
        // Under the same id it is opened once.
        let messages = operation::messages(&format!("verify-{id}"), &[line], Lane::Live, 1, 0).unwrap_or_default();
        for message in messages {
            if let endstate_events::Message::Command(opening) = &message.envelope.message {
                self.decide(desk, opening);
            }
        }
    }
}

#[async_trait]
impl Subject for Builtin {
    async fn tell(&self, command: &Command) -> Verdict {
        let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        self.stock(&mut desk, command);
        self.decide(&mut desk, command)
    }
}
