//! Events as they are stored, and back: the one place that knows both shapes.

use serde_json::Value;

use crate::core::{Context, EVENT_SCHEMA, Event, Mark, State};
use crate::store::{NewRecord, Record};

/// An event on record that this version cannot read.
#[derive(Debug)]
pub(crate) struct EventError {
    seq: u64,
    what: String,
}

impl std::fmt::Display for EventError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "event {} cannot be read: {}", self.seq, self.what)
    }
}

impl std::error::Error for EventError {}

/// The record of an event. The request's id stands in the payload: it belongs to the fact that it was asked for once.
pub(super) fn new_record(event: &Event, context: &Context, request: &str) -> NewRecord {
    let mut payload = serde_json::to_value(event).expect("events are plain data with text keys");
    if !request.is_empty() {
        payload["request"] = Value::from(request);
    }
    NewRecord {
        at_ms: context.now_ms,
        by: context.by.clone(),
        reason: context.reason.clone(),
        about: event.about(),
        kind: event.kind().to_owned(),
        schema: EVENT_SCHEMA,
        payload,
    }
}

/// Who, when and why, and which request asked for it.
pub(super) fn mark_of(record: &Record) -> Mark<'_> {
    let request = record.payload.get("request").and_then(Value::as_str).unwrap_or_default();
    Mark { seq: record.seq, at_ms: record.at_ms, by: &record.by, reason: &record.reason, request }
}

/// The event of a record, brought up to the schema of now. `None` for records of the store itself.
///
/// # Errors
/// A record of a newer version, or one whose payload is not what its kind says.
pub(crate) fn event_of(record: &Record) -> Result<Option<Event>, EventError> {
    let failed = |what: String| EventError { seq: record.seq, what };
    if record.kind.starts_with("store.") {
        return Ok(None);
    }
    match record.schema {
        // The next schema's arm will bring `1` up to date here, on the JSON value.
        EVENT_SCHEMA => {
            serde_json::from_value(record.payload.clone()).map(Some).map_err(|problem| failed(problem.to_string()))
        }
        newer => Err(failed(format!(
            "it was written by a newer version of Pointsman (schema {newer}; this one knows up to {EVENT_SCHEMA})"
        ))),
    }
}

/// Takes records into the state, in order.
///
/// # Errors
/// As [`event_of`]; the state is then of no use.
pub(crate) fn fold(state: &mut State, records: &[Record]) -> Result<(), EventError> {
    for record in records {
        if let Some(event) = event_of(record)? {
            state.evolve(&event, mark_of(record));
        }
    }
    Ok(())
}
