//! The check on plans made by hand: it finds nothing where nothing is wrong, within its bounds.

use super::follow::World;
use super::moves::moves;
use super::plans::{Build, bare_order, flash_sale, order, sample};
use super::rules::Production;
use super::state::State;
use super::*;
use crate::plan::{AfterPivot, AtDeadline, Mismatch, Refused};
use std::collections::HashSet;

/// Checks and shows what was found.
#[track_caller]
fn clean(plan: &Plan, samples: &[Sample], options: &Options) -> Report {
    let report = check(plan, samples, options).unwrap();
    for sample in &report.samples {
        println!("{sample}");
    }
    if let Some(violation) = report.violations.first() {
        panic!("{violation}");
    }
    report
}

#[test]
fn a_flash_sale_is_sound() {
    let plan = flash_sale();
    let samples = [order(&plan, 1, 0, 0), order(&plan, 2, 0, 0), order(&plan, 2, 1, 0), order(&plan, 2, 1, 1)];
    let report = clean(&plan, &samples, &Options::default());
    assert_eq!((report.unreached_ends, report.unreached), (vec![], vec![]));
    assert!(report.samples[3].states < 400_000, "the reductions have stopped working: {}", report.samples[3]);
}

#[test]
fn a_flash_sale_is_sound_with_rounds_kept() {
    let plan = flash_sale();
    let options = Options { rounds: Rounds::Kept { most: 2 }, kept: 1, dead_letters: false, ..Options::default() };
    clean(&plan, &[order(&plan, 1, 0, 0)], &options);
}

#[test]
fn z13_a_flash_sale_survives_participants_that_contradict_themselves() {
    let plan = flash_sale();
    let options = Options { participants: Participants::Contradictory, kept: 0, ..Options::default() };
    clean(&plan, &[bare_order(&plan)], &options);
}

#[test]
fn z14_a_flash_sale_follows_participants_that_undid_it_in_a_lost_history() {
    let plan = flash_sale();
    let options = Options { participants: Participants::Ahead, kept: 1, ..Options::default() };
    clean(&plan, &[order(&plan, 1, 0, 0)], &options);
}

#[test]
fn a_flash_sale_survives_expressions_that_fail() {
    let plan = flash_sale();
    let options = Options { faults: true, kept: 1, ..Options::default() };
    clean(&plan, &[order(&plan, 1, 0, 0)], &options);
}

#[test]
fn the_limit_of_states_is_an_error() {
    let plan = flash_sale();
    let options = Options { limit: 100, ..Options::default() };
    let error = check(&plan, &[order(&plan, 2, 0, 0)], &options).unwrap_err();
    assert_eq!(error.to_string(), "sample 2 items, 0 coupons, 0 points has more than 100 states");
}

#[test]
fn what_no_sample_reaches_is_told() {
    let plan = flash_sale();
    let report = check(&plan, &[order(&plan, 1, 0, 0)], &Options::default()).unwrap();
    assert_eq!(report.unreached_ends, []);
    let missing = ["hold_coupon", "hold_points", "confirm_coupon", "confirm_points"];
    assert_eq!(report.unreached, missing.map(|step| format!("no sample does step {step}")));
}

/// Every construct in one place: skipped and best-effort steps, waits before, at and after the pivot, each kind of
/// deadline and mismatch, a reversal with a wait.
fn every_construct(at_deadline: AtDeadline, mismatch: Mismatch, pivot: Pivot) -> Plan {
    Build::new(pivot)
        .reason("unpaid", "deadline", AfterPivot::Refuse)
        .reason("user", "owner", AfterPivot::Refuse)
        .reason("risk", "risk", AfterPivot::Reverse)
        .stage("hold")
        .step("hold", |_| {})
        .step("try", |step| step.best_effort = true)
        .step("skip", |step| step.refused = Refused::Skip)
        .wait("approved", |wait| {
            wait.at_deadline = at_deadline;
            wait.mismatch = mismatch;
        })
        .stage("confirm")
        .step("confirm", |step| {
            step.of = Some(0);
            step.refused = Refused::Reverse;
        })
        .wait("approved", |wait| wait.at_deadline = AtDeadline::Reverse)
        .stage("tell")
        .step("tell", |step| {
            step.undo = None;
            step.refused = Refused::Park;
        })
        .reversal("settle")
        .step("settle", |step| step.refused = Refused::Park)
        .wait("settled", |wait| {
            wait.at_deadline = at_deadline;
            wait.mismatch = mismatch;
        })
        .0
}

#[test]
fn every_construct_is_sound() {
    let deadlines = [AtDeadline::Next, AtDeadline::Cancel { reason: 0 }, AtDeadline::Reverse, AtDeadline::Park];
    let options = Options { kept: 1, ..Options::default() };
    for pivot in [Pivot::Never, Pivot::Start, Pivot::Stage(0), Pivot::Stage(1)] {
        for at_deadline in deadlines {
            for mismatch in [Mismatch::Late, Mismatch::Park] {
                let plan = every_construct(at_deadline, mismatch, pivot);
                let name = format!("{pivot:?}, {at_deadline:?}, {mismatch:?}");
                clean(&plan, &[sample(&plan, &name, &[])], &options);
            }
        }
    }
}

/// Whether production's transition treats equal chains equally: a move of a swapped state leads to what the swapped
/// move leads to. Sorting chains is sound because of this.
#[test]
fn swapping_equal_chains_changes_nothing() {
    let plan = flash_sale();
    let sample = order(&plan, 2, 1, 0);
    let options = Options { kept: 1, ..Options::default() };
    let shape = Shape::of(&plan, &sample, true);
    let world = World { plan: &plan, sample: &sample, shape: &shape, options: &options, rules: &Production };
    let plain = Shape::of(&plan, &sample, false);
    let apart = World { shape: &plain, ..world };
    let follow_all = |state: &State| -> HashSet<Vec<u8>> {
        let mut possible = Vec::new();
        moves(&plan, &plain, &options, state, &mut possible);
        let followed = possible.iter().filter_map(|mv| apart.follow(state, mv));
        followed
            .map(|mut followed| {
                let mut bytes = Vec::new();
                followed.state.sort_chains(&shape);
                followed.state.pack(plan.stages.len(), &mut bytes);
                bytes
            })
            .collect()
    };
    let (mut queue, mut met) = (vec![world.initial().0], HashSet::new());
    while let Some(state) = queue.pop().filter(|_| met.len() < 4_000) {
        let mut possible = Vec::new();
        moves(&plan, &shape, &options, &state, &mut possible);
        for followed in possible.iter().filter_map(|mv| world.follow(&state, mv)) {
            let mut bytes = Vec::new();
            followed.state.pack(plan.stages.len(), &mut bytes);
            if met.insert(bytes) && !followed.state.control.is_ended() {
                queue.push(followed.state);
            }
        }
        let wakes = |state: &State| (0..state.control.runs().len()).any(|run| state.control.is_run_parked(&plan, run));
        // Who wakes a step wakes other chains in a swapped state; the moves say so themselves.
        if !wakes(&state) {
            let expected = follow_all(&state);
            for swapped in [0b001, 0b010, 0b100].map(|first| state.rearranged(&shape, 1, first)) {
                assert_eq!(follow_all(&swapped), expected, "{state:?}");
            }
        }
    }
    assert!(met.len() >= 4_000);
}

#[test]
fn the_shipped_definitions_are_sound() {
    for source in crate::definition::shipped() {
        let definition = crate::definition::Definition::load(&source).unwrap();
        let report = check_definition(&definition, &Options::default()).unwrap();
        for sample in &report.samples {
            println!("{} {sample}", definition.name());
        }
        if let Some(violation) = report.violations.first() {
            panic!("{}: {violation}", definition.name());
        }
        assert_eq!(report.unreached_ends, [], "{}", definition.name());
    }
}
