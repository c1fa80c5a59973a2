//! Status changes as Debezium's outbox event router reads them: a row for each, in the transaction of the batch that sends
//! them (docs/debezium.md). Only where the settings ask for it.

use crate::parcel::Parcel;
use crate::statement::{Kind, Rows, Statement};
use crate::store::CommitError;
use endstate_events::cloud_event;
use endstate_events::{Envelope, Message, Topic};

/// The table, one partition per day.
pub(super) const TABLE: &str = "debezium_outbox";

pub(super) static APPEND: Statement = Statement {
    name: "debezium.append",
    columns: &[Kind::Text, Kind::Text, Kind::Text, Kind::Text, Kind::Text, Kind::Int, Kind::Text],
    sql: "with r(id, aggregatetype, aggregateid, type, payload, at_ms, lane) as ({rows}) \
          insert into debezium_outbox (id, aggregatetype, aggregateid, type, payload, \"timestamp\", lane) \
          select r.id, r.aggregatetype, r.aggregateid, r.type, r.payload, \
          timestamp '1970-01-01' + r.at_ms * interval '1 millisecond', r.lane from r",
};

/// The rows of what goes to the topic of domain events.
pub(super) fn rows(parcels: &[Parcel]) -> Result<Rows, CommitError> {
    let mut rows = Rows::new();
    for parcel in parcels.iter().filter(|parcel| parcel.topic == Topic::Events) {
        for envelope in parcel.envelopes() {
            append(&mut rows, envelope).map_err(|error| CommitError::Data(error.to_string()))?;
        }
    }
    Ok(rows)
}

fn append(rows: &mut Rows, envelope: &Envelope) -> serde_json::Result<()> {
    let Message::Domain(event) = &envelope.message else { return Ok(()) };
    let payload = String::from_utf8_lossy(&cloud_event::data(&envelope.message)?).into_owned();
    rows.push([
        envelope.id.as_str().into(),
        event.definition.as_str().into(),
        event.number.as_str().into(),
        cloud_event::type_of(&envelope.message).as_ref().into(),
        payload.into(),
        envelope.time_ms.into(),
        envelope.lane.label().into(),
    ]);
    Ok(())
}
