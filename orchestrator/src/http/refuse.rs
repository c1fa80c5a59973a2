//! What the engine's errors mean to a caller.

use crate::definitions::DefinitionsError;
use crate::discrepancy::CloseError;
use crate::gateway::GatewayError;
use crate::waiters::Notice;
use endstate_http::token::TokenError;
use endstate_http::{Code, FieldError, Problem};
use endstate_outbox::dead_letter::ReplayError;
use endstate_outbox::{BusError, CommitError, StoreError};
use endstate_saga::control::Phase;
use endstate_saga::decide::Denied;
use endstate_saga::definition::Misfit;

/// A store that fails is not the caller's fault, and passes.
pub(super) fn store(error: StoreError) -> Problem {
    tracing::error!(%error, "the store failed under a call");
    Problem::new(Code::StoreUnavailable, "send it again with the same number or key")
}

/// What a commit met that no shard retries.
pub(super) fn commit(error: CommitError) -> Problem {
    match error {
        CommitError::Data(reason) => Problem::new(Code::InvalidFields, reason),
        CommitError::Fenced(_) | CommitError::Conflict { .. } | CommitError::Doubt(_) => {
            tracing::error!(%error, "a call was not committed");
            Problem::new(Code::StoreUnavailable, "send it again with the same number or key")
        }
    }
}

/// Why a start or an input was not queued.
pub(super) fn gateway(definition: &str, error: GatewayError) -> Problem {
    match error {
        GatewayError::UnknownDefinition(name) => {
            Problem::new(Code::UnknownDefinition, format!("there is no active definition `{name}`"))
        }
        GatewayError::Invalid { misfits, .. } => {
            let error = |misfit: Misfit| FieldError { pointer: misfit.pointer, detail: misfit.reason };
            Problem::fields(Code::InputRefused, misfits.into_iter().map(error).collect())
        }
        GatewayError::Evaluation(error) => Problem::new(Code::InputRefused, error.to_string()),
        GatewayError::KeyIsNotNumber { .. } => Problem::new(Code::KeyNotNumber, error.to_string()),
        GatewayError::NumberTaken { ref number, .. } => {
            let location = super::show::location(definition, number);
            Problem::new(Code::NumberTaken, error.to_string()).at(location)
        }
        GatewayError::UnknownOrder { .. } => Problem::new(Code::UnknownSaga, error.to_string()),
        GatewayError::OrderUnfit { definition: ref order, ref number, .. } => {
            let location = super::show::location(order, number);
            Problem::new(Code::OrderUnfit, error.to_string()).at(location)
        }
        GatewayError::OtherLane { definition: ref order, ref number, .. } => {
            let location = super::show::location(order, number);
            Problem::new(Code::InvalidHeader, format!("Endstate-Lane: {error}")).at(location)
        }
        GatewayError::Bus(BusError::Refused(reason)) => Problem::new(Code::InvalidFields, reason),
        GatewayError::Bus(error @ BusError::Unacknowledged(_)) => {
            tracing::error!(%error, "an input was not acknowledged");
            Problem::new(Code::StoreUnavailable, "nobody knows whether it was queued: send it again with the same key")
        }
        GatewayError::Bus(BusError::Full(reason)) => {
            tracing::warn!(reason, "E4023: an input was refused");
            Problem::new(Code::TooMuchWaits, "the message broker is away: send it again later, with the same key")
        }
        GatewayError::Store(error) => store(error),
    }
}

/// What a saga said to a request that it did not take; `news` is how it stands.
pub(super) fn denied(denied: &Denied, news: &Notice) -> Problem {
    let code = match denied {
        Denied::NoSaga => Code::UnknownSaga,
        Denied::BadInput(_) => Code::InputRefused,
        Denied::Ended(_) => Code::SagaEnded,
        Denied::AfterPivot => Code::AfterPivot,
        Denied::TurnedBack => Code::TurnedBack,
        Denied::NotParked => Code::NothingParked,
        Denied::Forced => Code::ForcedAlready,
        Denied::RoundsUsedUp => Code::RoundsUsedUp,
        Denied::UnknownReason(_) => Code::UnknownReason,
        Denied::WrongRole { .. } => Code::ReasonNotAllowed,
        Denied::UnknownStep(_) => Code::UnknownStep,
        Denied::UnknownEvent(_) => Code::UnknownEvent,
        Denied::KeyTaken => Code::KeyTaken,
    };
    let phase = news.phase.map_or("unknown", Phase::label);
    let status = news.status.as_deref().unwrap_or("unknown");
    Problem::new(code, format!("{denied}; its status is {status}, its phase {phase}"))
}

/// Why a definition was not loaded or switched.
pub(super) fn definitions(error: DefinitionsError) -> Problem {
    match error {
        DefinitionsError::Faulty(faults) => {
            let errors = faults.iter().map(|fault| FieldError { pointer: "/text".into(), detail: fault.to_string() });
            Problem::fields(Code::DefinitionRefused, errors.collect())
        }
        DefinitionsError::Unreachable { .. } => Problem::new(Code::DefinitionRefused, error.to_string()),
        DefinitionsError::Changed { .. } => Problem::new(Code::VersionTaken, error.to_string()),
        DefinitionsError::Unknown { .. } | DefinitionsError::NoPrevious(_) => {
            Problem::new(Code::UnknownDefinition, error.to_string())
        }
        DefinitionsError::Crashed(_) => Problem::internal(&error),
        DefinitionsError::Store(error) => store(error),
        DefinitionsError::Commit(error) => commit(error),
    }
}

/// Why a dead letter was not replayed.
pub(super) fn replay(error: ReplayError) -> Problem {
    match error {
        ReplayError::Unknown(_) | ReplayError::Replayed(_) => Problem::new(Code::UnknownDeadLetter, error.to_string()),
        ReplayError::Unreadable { .. } => Problem::new(Code::InvalidFields, error.to_string()),
        ReplayError::Store(error) => store(error),
        ReplayError::Bus(error) => gateway("", GatewayError::Bus(error)),
        ReplayError::Commit(error) => commit(error),
    }
}

/// Why a discrepancy was not closed.
pub(super) fn close(error: CloseError) -> Problem {
    match error {
        CloseError::Unknown(_) => Problem::new(Code::UnknownDiscrepancy, error.to_string()),
        CloseError::Closed { .. } => Problem::new(Code::DiscrepancyClosed, error.to_string()),
        CloseError::Store(error) => store(error),
        CloseError::Commit(error) => commit(error),
    }
}

/// Why a token was not made or revoked.
pub(super) fn token(error: TokenError) -> Problem {
    match error {
        TokenError::Refused(reason) => Problem::new(Code::InvalidFields, reason),
        TokenError::Store(error) => store(error),
        TokenError::Commit(error) => commit(error),
    }
}
