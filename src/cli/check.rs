//! `endstate check`: one word for a monitor, from a running process or from the store itself.
//!
//! Both ways end in the same text, that of `/metrics`: a running process is asked for it, over a store it is made here.

mod args;

pub(crate) use args::{CheckArgs, HELP};

use super::client::Client;
use super::failure::{Exit, Failure};
use super::output::{Output, table};
use crate::config::Config;
use args::{Bounds, CheckFormat};
use endstate_orchestrator::job::Jobs;
use endstate_orchestrator::measure::Measure;
use endstate_outbox::{Metric, PostgresStore, SystemClock};
use reqwest::Method;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// How it stands; the worst of all is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Ok,
    Warning,
    Critical,
    Unknown,
}

impl State {
    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }
}

/// What is looked at: its name, what it is made of, how several processes or labels become one, and its unit.
struct Item {
    name: &'static str,
    metric: Metric,
    /// Only series with such a phase.
    phases: &'static [&'static str],
    /// Several series are added up; otherwise the highest counts.
    sum: bool,
    unit: &'static str,
    /// Whether a store alone tells it.
    stored: bool,
}

const fn item(name: &'static str, metric: Metric, unit: &'static str) -> Item {
    Item { name, metric, phases: &[], sum: false, unit, stored: true }
}

const STILL: &[&str] = &["running", "compensating", "reversing"];

/// All, in the order of their importance.
const ITEMS: &[Item] = &[
    Item { phases: &["parked"], sum: true, ..item("parked", Metric::SagasOpen, "") },
    Item { phases: STILL, ..item("unchanged", Metric::SagasStill, "s") },
    item("overdue", Metric::TimersOverdue, "s"),
    item("unpublished", Metric::UnpublishedAge, "s"),
    Item { stored: false, ..item("spilled", Metric::SpilledAge, "s") },
    Item { sum: true, stored: false, ..item("lag", Metric::LagRecords, "") },
    Item { stored: false, ..item("behind", Metric::ShardBehind, "s") },
    Item { stored: false, ..item("view", Metric::ViewLag, "s") },
    item("undrawn", Metric::Undrawn, ""),
    item("discrepancies", Metric::Discrepancies, ""),
    item("dead-letters", Metric::DeadLetters, ""),
    item("orphans", Metric::OrphansAge, "s"),
    item("calls", Metric::CallsAge, "s"),
    item("alerts", Metric::AlertsUntoldAge, "s"),
];

/// Names that `--only` takes.
pub(crate) fn names() -> Vec<&'static str> {
    ["ready"].into_iter().chain(ITEMS.iter().map(|item| item.name)).collect()
}

/// One answer.
struct Found {
    name: &'static str,
    state: State,
    value: Option<f64>,
    unit: &'static str,
    bounds: Option<Bounds>,
    text: String,
}

/// Looks, prints, and ends with 0, 1, 2 or 3.
pub(super) async fn run(
    args: &CheckArgs,
    output: Output,
    client: impl Fn() -> Result<Client, Failure>,
) -> Result<(), Failure> {
    // To a monitor, 1 and 2 are answers.
    let client = &client().map_err(|failure| Failure { exit: Exit::Unreachable, ..failure })?;
    let mut found = Vec::new();
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let text = if args.store {
        from_store(args).await
    } else {
        if wanted("ready") {
            found.push(ready(client).await);
        }
        // Asked only for whether it is ready, it needs no token for the numbers.
        match ITEMS.iter().any(|item| wanted(item.name)) {
            true => client.send(client.request(Method::GET, "/metrics")).await.map(|text| as_text(&text)),
            false => Ok(String::new()),
        }
    };
    match text {
        Err(failure) => found.push(Found {
            name: "metrics",
            state: State::Unknown,
            value: None,
            unit: "",
            bounds: None,
            text: failure.message,
        }),
        Ok(text) => {
            let items = ITEMS.iter().filter(|item| wanted(item.name) && (item.stored || !args.store));
            found.extend(items.map(|item| judge(item, bounds(args, item.name), &text)));
        }
    }
    let worst = found.iter().map(|found| found.state).max().unwrap_or(State::Unknown);
    show(&found, worst, args.format, output)?;
    match worst {
        State::Ok => Ok(()),
        State::Warning => Err(ended(Exit::No, &found, worst)),
        State::Critical => Err(ended(Exit::Usage, &found, worst)),
        State::Unknown => Err(ended(Exit::Unreachable, &found, worst)),
    }
}

fn ended(exit: Exit, found: &[Found], worst: State) -> Failure {
    let names: Vec<&str> = found.iter().filter(|found| found.state == worst).map(|found| found.name).collect();
    Failure { exit, message: format!("{}: {}", worst.label(), names.join(", ")), hint: None }
}

/// Ends for a command line that is not understood: with 3 where a monitor asked.
pub(crate) fn refused(error: &clap::Error) -> ExitCode {
    error.print().ok();
    let asked = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if asked.as_deref() == Some("check") => ExitCode::from(Exit::Unreachable as u8),
        other => ExitCode::from(u8::try_from(other).unwrap_or(u8::MAX)),
    }
}

fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn bounds(args: &CheckArgs, name: &str) -> Bounds {
    match name {
        "parked" => args.parked,
        "unchanged" => args.unchanged,
        "overdue" => args.overdue,
        "unpublished" => args.unpublished,
        "spilled" => args.spilled,
        "lag" => args.lag,
        "behind" => args.behind,
        "view" => args.view,
        "undrawn" => args.undrawn,
        "discrepancies" => args.discrepancies,
        "dead-letters" => args.dead_letters,
        "orphans" => args.orphans,
        "calls" => args.calls,
        _ => args.alerts,
    }
}

async fn ready(client: &Client) -> Found {
    let answer = client.request(Method::GET, "/readyz?verbose").send().await;
    let (state, text) = match answer {
        Ok(answer) if answer.status().is_success() => (State::Ok, "ready".to_owned()),
        Ok(answer) => {
            let said = answer.text().await.unwrap_or_default();
            let failing: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("FAIL ")).collect();
            (State::Critical, format!("not ready; fails: {}", failing.join(", ")))
        }
        Err(_) => (State::Critical, "does not answer".to_owned()),
    };
    Found { name: "ready", state, value: None, unit: "", bounds: None, text }
}

/// The numbers of the configured store, in the text of metrics. Takes nothing over and changes nothing.
async fn from_store(args: &CheckArgs) -> Result<String, Failure> {
    let config = Config::load(args.config.as_deref(), std::env::vars())?;
    if config.store.url.reveal().is_empty() {
        return Err(Failure::usage("no PostgreSQL is configured: an embedded store is its server's alone, ask that"));
    }
    let handle = crate::scrape::record(true)?;
    let store = PostgresStore::watch(&crate::ground::postgres(&config)).await.map_err(unread)?;
    let clock = Arc::new(SystemClock);
    let jobs = Arc::new(Jobs::new(store.clone(), clock.clone(), uuid::Uuid::nil(), Vec::new()));
    Measure::new(store, clock, jobs, Duration::ZERO).look().await.map_err(unread)?;
    Ok(handle.render())
}

fn unread(error: endstate_outbox::StoreError) -> Failure {
    Failure { exit: Exit::Unreachable, message: error.to_string(), hint: None }
}

/// The value of an item in the text of metrics: none when there is no such series and there should be one.
fn value(item: &Item, text: &str) -> Option<f64> {
    let name = item.metric.name();
    // A metric by phase has a series only where there are sagas: none is zero, if whoever looks for them has told what
    // always has a value.
    let labelled = !item.metric.row().labels.is_empty();
    let teller = if item.stored { Metric::TimersOverdue.name() } else { "endstate_" };
    let is_told = text.lines().any(|line| line.starts_with(teller));
    let mut found: Option<f64> = (labelled && is_told).then_some(0.0);
    for line in text.lines().filter_map(|line| line.strip_prefix(name)) {
        let Some((labels, value)) = line.rsplit_once(' ') else { continue };
        if !(labels.is_empty() || labels.starts_with('{')) {
            continue;
        }
        let phase = |phase: &str| labels.contains(&format!("phase=\"{phase}\""));
        if !item.phases.is_empty() && !item.phases.iter().any(|name| phase(name)) {
            continue;
        }
        let Ok(value) = value.parse::<f64>() else { continue };
        found = Some(match (found, item.sum) {
            (None, _) => value,
            (Some(before), true) => before + value,
            (Some(before), false) => before.max(value),
        });
    }
    found
}

fn judge(item: &Item, bounds: Bounds, text: &str) -> Found {
    let Item { name, unit, .. } = *item;
    let Some(value) = value(item, text) else {
        let text = format!("{} is not told; is the role `sweeper` running?", item.metric.name());
        return Found { name, state: State::Unknown, value: None, unit, bounds: Some(bounds), text };
    };
    let over = |bound: f64| value >= bound && value > 0.0;
    let state = match bounds {
        Bounds { critical, .. } if over(critical) => State::Critical,
        Bounds { warning: Some(warning), .. } if over(warning) => State::Warning,
        Bounds { .. } => State::Ok,
    };
    let text = format!("{value}{unit}");
    Found { name, state, value: Some(value), unit, bounds: Some(bounds), text }
}

fn show(found: &[Found], worst: State, format: Option<CheckFormat>, output: Output) -> Result<(), Failure> {
    match format {
        Some(CheckFormat::Nagios) => output.raw(&nagios(found, worst)),
        Some(CheckFormat::Prometheus) => output.raw(&prometheus(found, worst)),
        None => {
            let one = |found: &Found| {
                let Found { name, state, value, unit, bounds, text } = found;
                let (warning, critical) = bounds.map_or((None, None), |b| (b.warning, Some(b.critical)));
                json!({ "check": name, "state": state.label(), "value": value, "unit": unit, "warning": warning,
                        "critical": critical, "text": text })
            };
            let value = json!({ "state": worst.label(), "checks": found.iter().map(one).collect::<Vec<_>>() });
            let row = |found: &Found| {
                let bounds = found.bounds.map_or_else(String::new, |bounds| bounds.to_string());
                vec![found.name.to_owned(), found.state.label().to_owned(), found.text.clone(), bounds]
            };
            let rows: Vec<_> = found.iter().map(row).collect();
            output.print(&value, |_| table(&["check", "state", "value", "warning:critical"], &rows))
        }
    }
}

/// One line, and behind the bar what a monitor draws: `name=value;warning;critical`.
fn nagios(found: &[Found], worst: State) -> String {
    let told: Vec<String> = found
        .iter()
        .filter(|found| found.state != State::Ok)
        .map(|found| format!("{} {}", found.name, found.text))
        .collect();
    let told = if told.is_empty() { format!("{} checks", found.len()) } else { told.join(", ") };
    let drawn: Vec<String> = found
        .iter()
        .filter_map(|found| {
            let (value, bounds) = (found.value?, found.bounds?);
            let warning = bounds.warning.map_or_else(String::new, |warning| warning.to_string());
            Some(format!("{}={value}{};{warning};{}", found.name, found.unit, bounds.critical))
        })
        .collect();
    let bar = if drawn.is_empty() { "" } else { " | " };
    format!("ENDSTATE {} - {}{bar}{}\n", worst.label().to_uppercase(), told.replace('|', "/"), drawn.join(" "))
}

/// For a textfile collector; 0 ok, 1 warning, 2 critical, 3 unknown.
fn prometheus(found: &[Found], worst: State) -> String {
    let mut text = "# HELP endstate_check_state 0 ok, 1 warning, 2 critical, 3 unknown.\n\
                    # TYPE endstate_check_state gauge\n"
        .to_owned();
    for found in found {
        text += &format!("endstate_check_state{{check=\"{}\"}} {}\n", found.name, found.state as u8);
    }
    text += &format!("endstate_check_state{{check=\"all\"}} {}\n", worst as u8);
    text += "# HELP endstate_check_value What was looked at, in seconds or as a count.\n\
             # TYPE endstate_check_value gauge\n";
    for (name, value) in found.iter().filter_map(|found| Some((found.name, found.value?))) {
        text += &format!("endstate_check_value{{check=\"{name}\"}} {value}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP endstate_sagas_open Sagas.\n\
        endstate_sagas_open{definition=\"a\",phase=\"parked\"} 2\n\
        endstate_sagas_open{definition=\"b\",phase=\"parked\"} 1\n\
        endstate_sagas_open{definition=\"a\",phase=\"waiting\"} 70\n\
        endstate_sagas_oldest_unchanged_seconds{definition=\"a\",phase=\"running\"} 12.5\n\
        endstate_sagas_oldest_unchanged_seconds{definition=\"a\",phase=\"waiting\"} 1700\n\
        endstate_dead_letters_waiting 0\n\
        endstate_dead_letters_total{inbox=\"start\"} 9\n";

    fn judged(name: &str, bounds: &str) -> (State, Option<f64>) {
        let item = ITEMS.iter().find(|item| item.name == name).unwrap();
        let found = judge(item, bounds.parse().unwrap(), TEXT);
        (found.state, found.value)
    }

    #[test]
    fn what_is_told_is_added_up_or_the_worst_and_compared() {
        assert_eq!(judged("parked", "1:50"), (State::Warning, Some(3.0)));
        assert_eq!(judged("parked", ":3"), (State::Critical, Some(3.0)));
        assert_eq!(judged("unchanged", "600:1800"), (State::Ok, Some(12.5)), "a waiting one may wait");
        assert_eq!(judged("dead-letters", "0:0"), (State::Ok, Some(0.0)), "none is never too many");
        assert_eq!(judged("discrepancies", "1:1"), (State::Unknown, None), "silence is not zero");
    }

    #[test]
    fn nobody_says_that_there_are_none_who_has_not_looked() {
        let of = |text: &str| {
            ["parked", "unchanged", "lag"].map(|name| {
                let item = ITEMS.iter().find(|item| item.name == name).unwrap();
                judge(item, "1:50".parse().unwrap(), text).state
            })
        };
        let gateway = "endstate_http_requests_total{route=\"/v1/orders\"} 3\n";
        assert_eq!(of(gateway), [State::Unknown, State::Unknown, State::Ok]);
        let sweeper = format!("{gateway}endstate_timers_overdue_oldest_seconds 0\n");
        assert_eq!(of(&sweeper), [State::Ok; 3], "no saga is open");
    }

    #[test]
    fn monitors_get_their_line() {
        let found: Vec<Found> = ITEMS[..1].iter().map(|item| judge(item, "1:50".parse().unwrap(), TEXT)).collect();
        assert_eq!(nagios(&found, State::Warning), "ENDSTATE WARNING - parked 3 | parked=3;1;50\n");
        assert!(prometheus(&found, State::Warning).contains("endstate_check_state{check=\"all\"} 1\n"));
    }
}
