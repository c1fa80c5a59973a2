//! Events as they lie in stores: those of old releases must keep decoding. A golden file is never changed once released.

use crate::event::{Event, Fact};
use crate::fold;
use crate::toy::{Run, Toy};
use serde_json::Value;

#[test]
fn a_snapshot_is_written_as_its_golden_file_says_and_read_back() {
    let mut run = Run::start(Toy::order(1));
    run.done("hold/0").paid("early", 7).done("coupon").snapshot();
    run.done("open").snapshot();
    let event = run.last.events.last().unwrap();
    assert!(matches!(event.fact, Fact::Snapshot(_)));
    let golden = include_str!("../golden/snapshot.v1.json");
    let read: Event = serde_json::from_str(golden).unwrap();
    assert_eq!(read, *event, "it means something else now");
    let written = serde_json::to_value(event).unwrap();
    assert_eq!(written, serde_json::from_str::<Value>(golden).unwrap(), "it is written otherwise now");
    assert_eq!(fold::begin(&read), Some(run.saga));
}
