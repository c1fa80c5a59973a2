//! `endstate participant verify`: whether a participant keeps what every participant promises, found out from outside.
//!
//! - [`args`]: what can be typed
//! - [`promises`], [`checks`]: what is promised, and how it is found out; `tests/world/three_ways.rs` plays the same ones with sagas around them
//! - [`payload`]: payloads that fit a schema
//! - [`subject`], [`kafka`]: whoever is verified
//! - `tests`: a participant that can be broken in every way, and is caught

mod args;
mod checks;
mod kafka;
mod payload;
mod promises;
mod subject;
#[cfg(test)]
mod tests;

pub(crate) use args::{ParticipantCommand, VerifyArgs};

use crate::cli::failure::Failure;
use crate::cli::output::{Output, table};
use crate::config::Config;
use anyhow::Context as _;
use checks::Trial;
use endstate_events::{Action, Catalogue, ForeignTopic, Json, Participant, Transport};
use endstate_http::strict_json;
use endstate_participants::outside::HttpParticipant;
use endstate_saga::definition::load_catalogue;
use kafka::Kafka;
use payload::Payload;
use promises::{Check, Finding};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use subject::{Builtin, Subject};

/// What built-in participants need that a schema does not say: payloads, and actions that are about others.
const BUILTIN_OF: [(&str, &str, &str); 3] =
    [("stock", "confirm", "hold"), ("coupon", "confirm", "hold"), ("points", "confirm", "hold")];

/// Actions of built-in participants that need a whole order around them; `tests/world` plays those.
const WITHIN_ORDERS: [(&str, &str); 5] =
    [("coupon", "give_back"), ("payment", "ask"), ("payment", "book"), ("payment", "refund"), ("points", "give_back")];

/// Verifies one participant; exit code 1 when a check fails.
pub(crate) async fn run(args: &VerifyArgs, output: Output) -> Result<(), Failure> {
    let catalogue = catalogue(args)?;
    let participant = catalogue.participants.get(&args.participant).ok_or_else(|| {
        let known: Vec<&str> = catalogue.participants.keys().map(String::as_str).collect();
        Failure::usage(format!("no participant `{}`: the catalogue has {}", args.participant, known.join(", ")))
    })?;
    let plans = plans(args, participant)?;
    let findings = match &participant.transport {
        Transport::Builtin => {
            let subject = Builtin::new(catalogue.clone());
            verified(args, &plans, &subject).await
        }
        Transport::Http { url, timeout_ms } => {
            let config = Config::load(args.config.as_deref(), std::env::vars())?;
            let trust = config.tls.trust().map_err(anyhow::Error::from)?;
            let moved = config.participants.addresses()?;
            let url = args.at.as_deref().or(moved.get(&args.participant).map(String::as_str)).unwrap_or(url);
            let timeout = Duration::from_millis(*timeout_ms);
            let subject = HttpParticipant::new(url, timeout, &trust).map_err(anyhow::Error::from)?;
            verified(args, &plans, &subject).await
        }
        Transport::Kafka { .. } => {
            let config = Config::load(args.config.as_deref(), std::env::vars())?;
            let topic = topic(args, participant, &config)?;
            let settings = crate::ground::kafka(&config, 1)?;
            let subject = Kafka::open(settings, topic, Duration::from_secs(args.patience)).await?;
            let findings = verified(args, &plans, &subject).await;
            subject.close().await;
            findings
        }
    };
    report(args, &findings, output)
}

fn catalogue(args: &VerifyArgs) -> Result<Catalogue, Failure> {
    let builtin = ("catalogue/builtin.yaml".to_owned(), endstate_saga::definition::BUILTIN.to_owned());
    let mut files = vec![builtin];
    for file in &args.catalogue {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        files.push((file.display().to_string(), text));
    }
    load_catalogue(files.iter().map(|(name, text)| (name.as_str(), text.as_str()))).map_err(|diagnostics| {
        Failure::usage(diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })
}

fn topic(args: &VerifyArgs, participant: &Participant, config: &Config) -> anyhow::Result<ForeignTopic> {
    anyhow::ensure!(
        !config.kafka.brokers.is_empty(),
        "kafka.brokers is empty: set ENDSTATE_KAFKA_BROKERS, or give --config"
    );
    let moved = config.participants.topics()?;
    match (&args.at, moved.get(&args.participant)) {
        (Some(name), _) => Ok(ForeignTopic::named(name)?),
        (None, Some(topic)) => Ok(*topic),
        (None, None) => {
            let named = participant.transport.topic(&config.environment).context("it has no topic")?;
            Ok(named?)
        }
    }
}

/// One action to verify, and with what.
struct Plan<'a> {
    name: &'a str,
    action: &'a Action,
    with: Payload,
    other: Option<Payload>,
    refused: Option<Payload>,
    of: Option<&'a str>,
}

fn plans<'a>(args: &'a VerifyArgs, participant: &'a Participant) -> Result<Vec<Plan<'a>>, Failure> {
    let (with, other, refused) = (given(&args.with)?, given(&args.other)?, given(&args.refuse)?);
    let mut of: BTreeMap<&str, &str> = args.of.iter().filter_map(|text| text.split_once('=')).collect();
    for (name, action, about) in BUILTIN_OF {
        if name == args.participant && participant.transport == Transport::Builtin {
            of.entry(action).or_insert(about);
        }
    }
    let asked_for = args.actions.iter().map(String::as_str).chain(of.values().copied());
    for name in asked_for.chain([&with, &other, &refused].into_iter().flat_map(|given| given.keys().copied())) {
        if !participant.actions.contains_key(name) {
            let known: Vec<&str> = participant.actions.keys().map(String::as_str).collect();
            return Err(Failure::usage(format!("no action `{name}`: the catalogue has {}", known.join(", "))));
        }
    }
    let undos: BTreeSet<&str> = participant.actions.values().filter_map(|action| action.undo.as_deref()).collect();
    let is_within = |name: &str| {
        participant.transport == Transport::Builtin && WITHIN_ORDERS.contains(&(args.participant.as_str(), name))
    };
    let wanted = |name: &str| match args.actions.is_empty() {
        // An undo is verified with what it undoes.
        true => !undos.contains(name) && !is_within(name),
        false => args.actions.iter().any(|action| action == name),
    };
    let plan = |(name, action): (&'a String, &'a Action)| {
        let payload = with.get(name.as_str()).cloned().unwrap_or_else(|| usual(&args.participant, name, action));
        let varied = || payload.varied(&action.with);
        let other = other.get(name.as_str()).cloned().or_else(varied);
        let (refused, of) = (refused.get(name.as_str()).cloned(), of.get(name.as_str()).copied());
        Plan { name, action, with: payload, other, refused, of }
    };
    Ok(participant.actions.iter().filter(|(name, _)| wanted(name)).map(plan).collect())
}

/// A payload that the action does.
fn usual(participant: &str, name: &str, action: &Action) -> Payload {
    match (participant, name) {
        // A coupon is held once: each saga has its own.
        ("coupon", "hold") => Payload(json!({ "coupon": "verify-{n}", "user": "verify" })),
        ("returns", "claim") => Payload(json!({ "order": "verify-{n}", "line": "1", "ordered": 9, "quantity": 1 })),
        _ => Payload::of_schema(&action.with),
    }
}

/// `ACTION=JSON`, some times.
fn given(texts: &[String]) -> Result<BTreeMap<&str, Payload>, Failure> {
    let read = |text: &'_ String| -> Option<Json> { strict_json::parse(text.split_once('=')?.1.as_bytes()).ok() };
    let wrong = |text: &String| Failure::usage(format!("`{text}` is not ACTION=JSON"));
    let pair = |text: &'_ String| read(text).map(Payload).ok_or_else(|| wrong(text));
    texts.iter().map(|text| Ok((text.split('=').next().unwrap_or_default(), pair(text)?))).collect()
}

async fn verified(args: &VerifyArgs, plans: &[Plan<'_>], subject: &dyn Subject) -> Vec<Finding> {
    let wanted = |check: Check| args.checks.is_empty() || args.checks.iter().any(|name| name == check.label());
    let mut findings = Vec::new();
    for plan in plans {
        let about = plan.of.and_then(|of| plans.iter().find(|other| other.name == of));
        let trial = Trial {
            participant: &args.participant,
            name: plan.name,
            action: plan.action,
            with: plan.with.clone(),
            other: plan.other.clone(),
            refused: plan.refused.clone(),
            of: about.map(|other| (other.name, other.action, other.with.clone())),
            subject,
        };
        findings.extend(trial.run(wanted).await);
    }
    findings
}

fn report(args: &VerifyArgs, findings: &[Finding], output: Output) -> Result<(), Failure> {
    let count = |result: &str| findings.iter().filter(|finding| finding.result == result).count();
    let (ok, failed, skipped) = (count("ok"), count("failed"), count("skipped"));
    let found = json!({
        "participant": args.participant, "ok": ok, "failed": failed, "skipped": skipped, "checks": findings,
    });
    output.print(&found, |_| {
        let row = |finding: &Finding| {
            let said = finding.said.clone().unwrap_or_default();
            vec![
                finding.result.to_owned(),
                finding.action.clone(),
                finding.check.label().to_owned(),
                finding.expected.to_owned(),
                said,
            ]
        };
        let rows: Vec<Vec<String>> = findings.iter().map(row).collect();
        let mend = findings.iter().filter_map(|finding| {
            let mend = finding.mend?;
            Some(format!("mend {}, {}: {mend}\n", finding.action, finding.check.label()))
        });
        let mend: String = mend.collect();
        let all = table(&["", "action", "check", "expected", "instead"], &rows);
        format!("{all}\n{mend}{}: {ok} ok, {failed} failed, {skipped} skipped\n", args.participant)
    })?;
    match (failed, ok) {
        (0, 1..) => Ok(()),
        (0, _) => Err(Failure::usage("nothing was verified")),
        _ => Err(Failure::no(format!("{} breaks {failed} promises", args.participant))
            .hint("docs/participants.md tells what every participant promises")),
    }
}
