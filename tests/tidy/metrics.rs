//! Metrics: each one of the table is told of somewhere, `docs/metrics.md` shows the table, and whatever is named by
//! dashboard, rules and runbooks is in it. That it is told by a running process, `tests/it/scrape.rs` and
//! `tests/services/scrape.rs` show.

use crate::{files, none, read, root};
use endstate_outbox::metric::{Kind, Metric, Row};
use std::collections::BTreeSet;
use std::fs;

const DASHBOARD: &str = "docs/grafana/endstate.json";
const RULES: &str = "docs/alerts/endstate.rules.yml";
const RULE_TESTS: &str = "docs/alerts/endstate.test.yml";

const PAGE: &str = "# Metrics

What `/metrics` tells, in Prometheus' text format; the scope `audit:read` may read it. Printed from
`events/outbox/src/metric.rs`, which holds all of it; `ENDSTATE_BLESS=1 cargo test --test tidy` writes this page.

- Histograms have fixed buckets, so they can be added up over processes. No label holds an id.
- What is *looked up in the store* is told by processes with the role `sweeper`, every `metrics.look_every_s`: several of
  them say the same, so take the highest and do not add up. `endstate_store_looks_total` says whether looking works.
- Metrics marked *shared* exist on PostgreSQL and Kafka only.

| Metric | Kind | Labels | Says |
|---|---|---|---|
";

fn line(row: &Row) -> String {
    let Row { name, kind, help, labels, shared } = row;
    let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
    let shared = if *shared { " *Shared.*" } else { "" };
    let buckets = match kind {
        Kind::Histogram(buckets) => {
            let bounds: Vec<String> = buckets.iter().map(ToString::to_string).collect();
            format!(" Buckets: {}.", bounds.join(", "))
        }
        Kind::Counter | Kind::Gauge => String::new(),
    };
    format!("| `{name}` | {} | {} | {}{buckets}{shared} |\n", kind.label(), labels.join(", "), help.trim())
}

#[test]
fn the_page_of_metrics_shows_the_table() {
    let lines: String = Metric::ALL.iter().map(|metric| line(&metric.row())).collect();
    let page = format!("{PAGE}{lines}");
    if std::env::var_os("ENDSTATE_BLESS").is_some() {
        fs::write(root().join("docs/metrics.md"), &page).unwrap();
    }
    assert!(read("docs/metrics.md") == page, "docs/metrics.md is stale; ENDSTATE_BLESS=1 writes it");
}

#[test]
fn every_metric_is_told_of_somewhere() {
    let rust = files(&[".rs"]);
    let used = |metric: &&Metric| {
        let path = format!("Metric::{metric:?}");
        let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric());
        let in_text = |text: &str| text.match_indices(&path).any(|(at, _)| ends(&text[at + path.len()..]));
        rust.iter().any(|file| file.path != "events/outbox/src/metric.rs" && in_text(file.code()))
    };
    let silent = Metric::ALL.iter().filter(|metric| !used(metric));
    none(silent.map(|metric| format!("nobody tells of {}", metric.name())).collect());
}

/// Words of a text that look like metrics of ours, without what Prometheus adds to histograms.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let known = |name: &str| Metric::ALL.iter().any(|metric| metric.name() == name);
    let plain = |word: &str| {
        let ends = ["_bucket", "_sum", "_count"].iter().filter_map(|end| word.strip_suffix(end));
        ends.into_iter().find(|name| known(name)).unwrap_or(word).to_owned()
    };
    words.filter(|word| word.starts_with("endstate_") && word.len() > "endstate_".len()).map(plain).collect()
}

#[test]
fn whatever_watches_names_metrics_that_there_are() {
    let runbooks = files(&[".md"]).into_iter().filter(|file| file.path.starts_with("docs/runbook/"));
    let mut texts: Vec<(String, String)> = runbooks.map(|file| (file.path, file.text)).collect();
    texts.extend([DASHBOARD, RULES, RULE_TESTS].map(|path| (path.to_owned(), read(path))));
    let mut findings = Vec::new();
    for (path, text) in &texts {
        for name in named(text).iter().filter(|name| !Metric::ALL.iter().any(|metric| metric.name() == **name)) {
            findings.push(format!("{path}: no metric {name}"));
        }
    }
    let shown = named(&read(DASHBOARD));
    for metric in Metric::ALL.iter().filter(|metric| !shown.contains(metric.name())) {
        findings.push(format!("{DASHBOARD} does not show {}", metric.name()));
    }
    none(findings);
}

/// Labels that queries may use on a metric: its own, and those that scraping adds.
#[test]
fn queries_use_labels_that_there_are() {
    let mut findings = Vec::new();
    for path in [DASHBOARD, RULES] {
        let text = read(path).replace("\\\"", "\"");
        for metric in Metric::ALL {
            let row = metric.row();
            for (at, _) in text.match_indices(row.name) {
                let rest = &text[at + row.name.len()..];
                let rest = ["_bucket", "_sum", "_count"].iter().find_map(|end| rest.strip_prefix(end)).unwrap_or(rest);
                let Some((matchers, _)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
                    continue;
                };
                for label in matchers.split(',').filter_map(|matcher| matcher.split(['=', '!']).next()) {
                    let label = label.trim();
                    if !row.labels.contains(&label) && !["job", "instance", "le", ""].contains(&label) {
                        findings.push(format!("{path}: {} has no label {label}", row.name));
                    }
                }
            }
        }
    }
    none(findings);
}

#[test]
fn every_alert_has_its_runbook_and_its_test() {
    let (rules, tests) = (read(RULES), read(RULE_TESTS));
    let alerts: BTreeSet<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let mut findings = Vec::new();
    for alert in &alerts {
        if !rules.contains(&format!("\"{{{{ $externalLabels.engine_url }}}}/runbook/{alert}\"\n")) {
            findings.push(format!("{RULES}: {alert} does not link its runbook"));
        }
        if !tests.contains(&format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"}}")) {
            findings.push(format!("{RULE_TESTS}: {alert} is not shown firing"));
        }
        let path = format!("docs/runbook/{alert}.md");
        let Ok(page) = fs::read_to_string(root().join(&path)) else {
            findings.push(format!("{alert} has no runbook {path}"));
            continue;
        };
        let parts = [&format!("# {alert}"), "## Meaning", "## Impact", "## Diagnosis", "## Mitigation"];
        let missing = parts.iter().filter(|part| !page.lines().any(|line| line == **part));
        findings.extend(missing.map(|part| format!("{path} lacks `{part}`")));
    }
    for page in files(&[".md"])
        .iter()
        .filter_map(|file| file.path.strip_prefix("docs/runbook/")?.strip_suffix(".md").map(str::to_owned))
    {
        if page != "README" && !alerts.contains(page.as_str()) {
            findings.push(format!("docs/runbook/{page}.md is of no alert"));
        }
    }
    if read("docs/runbook/README.md").contains("{{") {
        findings.push("docs/runbook/README.md shows a template, not what it means".to_owned());
    }
    none(findings);
}

/// What Prometheus adds to every series must be there, or a rule over a label of that name is shown to work and does not.
#[test]
fn series_in_the_tests_of_rules_have_what_scraping_adds() {
    let text = read(RULE_TESTS);
    let series = text.lines().filter_map(|line| line.trim().strip_prefix("- series: '"));
    let bare = |series: &&str| !series.contains("job=\"endstate\"") || !series.contains("instance=\"");
    let findings: Vec<String> =
        series.filter(bare).map(|series| format!("{RULE_TESTS}: not scraped: {series}")).collect();
    none(findings);
}
