//! Control as a short text: it is written with every saga row.
//!
//! `COURSE NEXT FLAGS:WAITS:RUNS`: one letter; two hex digits; one hex digit; a digit per stage without the trailing
//! zeros; eight hex digits per run (step, packed states, round, round of the undo).

use super::{Contradiction, Control, Course, Forward, Outcome, Run, Undo, WaitState};
use crate::plan::{MAX_RUNS, MAX_STAGES};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) const COURSES: [(Course, u8); 9] = [
    (Course::Forward, b'f'),
    (Course::Compensating, b'c'),
    (Course::Settling, b's'),
    (Course::Reversing, b'r'),
    (Course::Returning, b'u'),
    (Course::Ended(Outcome::Completed), b'C'),
    (Course::Ended(Outcome::Cancelled), b'X'),
    (Course::Ended(Outcome::Reversed), b'R'),
    (Course::Ended(Outcome::Forced), b'F'),
];

pub(crate) const WAITS: [WaitState; 9] = [
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

pub(crate) const FORWARDS: [Forward; 5] =
    [Forward::InFlight, Forward::Exhausted, Forward::Done, Forward::Refused, Forward::Abandoned];

pub(crate) const UNDOS: [Undo; 5] = [Undo::None, Undo::InFlight, Undo::Done, Undo::Refused, Undo::Abandoned];

pub(crate) const CONTRADICTIONS: [Contradiction; 3] =
    [Contradiction::None, Contradiction::Open, Contradiction::Accepted];

impl Control {
    /// A control state from its parts, for the model check, which stores states packed.
    pub(crate) fn of_parts(
        (course, next, forced, faulted): (Course, u8, bool, bool),
        waits: impl Iterator<Item = WaitState>,
        runs: impl Iterator<Item = Run>,
    ) -> Self {
        let mut control = Self { course, next, forced, faulted, ..Self::default() };
        for (slot, wait) in control.waits.iter_mut().zip(waits) {
            *slot = wait;
        }
        for (slot, run) in control.runs.iter_mut().zip(runs) {
            *slot = run;
            control.len += 1;
        }
        control
    }
}

impl Serialize for Control {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&write(self))
    }
}

impl<'de> Deserialize<'de> for Control {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        read(&text).ok_or_else(|| serde::de::Error::custom("not a control state"))
    }
}

pub(crate) fn index_of<T: PartialEq>(table: &[T], value: &T) -> u8 {
    table.iter().position(|entry| entry == value).map_or(0, |index| index as u8)
}

fn write(control: &Control) -> String {
    let course = COURSES.iter().find(|(course, _)| *course == control.course).map_or(b'f', |(_, letter)| *letter);
    let mut text = String::with_capacity(8 + MAX_STAGES + 8 * control.runs().len());
    text.push(char::from(course));
    push_hex(&mut text, control.next);
    text.push(char::from(b'0' + u8::from(control.forced) + 2 * u8::from(control.faulted)));
    text.push(':');
    let used = control.waits.iter().rposition(|wait| *wait != WaitState::NotOpen).map_or(0, |last| last + 1);
    control.waits[..used].iter().for_each(|wait| text.push(char::from(b'0' + index_of(&WAITS, wait))));
    text.push(':');
    for run in control.runs() {
        let packed = index_of(&FORWARDS, &run.forward)
            | index_of(&UNDOS, &run.undo) << 3
            | index_of(&CONTRADICTIONS, &run.contradiction) << 6;
        for byte in [run.step, packed, run.round, run.undo_round] {
            push_hex(&mut text, byte);
        }
    }
    text
}

fn push_hex(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    text.push(char::from(DIGITS[usize::from(byte >> 4)]));
    text.push(char::from(DIGITS[usize::from(byte & 15)]));
}

fn read(text: &str) -> Option<Control> {
    let mut parts = text.splitn(3, ':');
    let (head, waits, runs) = (parts.next()?.as_bytes(), parts.next()?.as_bytes(), parts.next()?.as_bytes());
    let [letter, high, low, flags] = head else { return None };
    let mut control = Control {
        course: COURSES.iter().find(|(_, course)| course == letter)?.0,
        next: hex(*high, *low)?,
        forced: flags.checked_sub(b'0')? & 1 != 0,
        faulted: flags.checked_sub(b'0')? & 2 != 0,
        ..Control::default()
    };
    if waits.len() > MAX_STAGES || runs.len() > 8 * MAX_RUNS || !runs.len().is_multiple_of(8) {
        return None;
    }
    for (wait, digit) in control.waits.iter_mut().zip(waits) {
        *wait = *WAITS.get(usize::from(digit.checked_sub(b'0')?))?;
    }
    control.len = (runs.len() / 8) as u8;
    for (run, digits) in control.runs.iter_mut().zip(runs.chunks_exact(8)) {
        let packed = hex(digits[2], digits[3])?;
        *run = Run {
            step: hex(digits[0], digits[1])?,
            forward: *FORWARDS.get(usize::from(packed & 7))?,
            undo: *UNDOS.get(usize::from(packed >> 3 & 7))?,
            contradiction: *CONTRADICTIONS.get(usize::from(packed >> 6))?,
            round: hex(digits[4], digits[5])?,
            undo_round: hex(digits[6], digits[7])?,
        };
    }
    Some(control)
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    Some(digit(high)? << 4 | digit(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{ControlEvent, apply};

    #[test]
    fn a_control_survives_its_text() {
        let events = [
            ControlEvent::StageEntered { stage: 0, counts: vec![(0, 2), (3, 1)] },
            ControlEvent::RunDone { run: 0 },
            ControlEvent::EventKept { stage: 2 },
            ControlEvent::RunRefused { run: 2 },
            ControlEvent::TurnedBack { reversal: false },
            ControlEvent::UndosSent { runs: vec![0, 1] },
            ControlEvent::UndoRefused { run: 1 },
            ControlEvent::Contradicted { run: 0 },
        ];
        let control = events.iter().fold(Control::default(), apply);
        let text = serde_json::to_string(&control).unwrap();
        assert_eq!(serde_json::from_str::<Control>(&text).unwrap(), control, "{text}");
        for bad in ["", "f010", "z010::", "f010:9:", "f010::0", "f010::ffffffff"] {
            assert!(read(bad).is_none(), "{bad}");
        }
    }
}
