//! What a run ends with: orders by story and status, throughput, kills, the books, and the verdict.

use super::Run;
use super::books::Books;
use super::journal::Told;
use super::killer::Kill;
use super::sale::Story;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, table};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Everything that a run has to tell.
pub(super) struct Report<'a> {
    pub(super) run: &'a Run,
    pub(super) told: &'a [Told],
    pub(super) kills: &'a [Kill],
    /// From the opening to the last buyer's end.
    pub(super) seconds: f64,
    /// Sagas that are still open, by definition and status.
    pub(super) open: &'a BTreeMap<String, u64>,
    pub(super) books: &'a Books,
}

/// The journal as a file: one order a line.
pub(super) fn journal(told: &[Told]) -> String {
    told.iter().map(|told| serde_json::to_string(told).unwrap_or_default() + "\n").collect()
}

impl Report<'_> {
    /// For programs.
    pub(super) fn json(&self) -> Value {
        json!({
            "sale": self.run.sale.header.name,
            "orders": self.told.len(),
            "final": self.final_orders(),
            "seconds": (self.seconds * 1_000.0).round() / 1_000.0,
            "orders_per_s": self.orders_per_s(),
            "calls": self.run.shop.answered.load(Ordering::Relaxed),
            "calls_repeated": self.run.shop.repeated.load(Ordering::Relaxed),
            "outcomes": self.count(|told| told.outcome().to_owned()),
            "statuses": self.count(|told| told.status().to_owned()),
            "stories": Story::ALL.iter().map(|story| json!({ "story": story, "statuses": self.statuses_of(*story) })).collect::<Vec<_>>(),
            "kills": self.kills,
            "open": self.open,
            "surprises": self.surprises(),
            "books": self.books,
            "balanced": self.books.balanced(),
        })
    }

    /// For people.
    pub(super) fn text(&self, output: Output) -> String {
        let mut text = format!("{}\n\n", output.bold("Orders, by what the buyer did and how they ended"));
        text += &self.stories();
        text += &format!("\n{}\n\n", output.bold("Why orders were closed or refunded"));
        let reasons = self.count(|told| {
            told.last["reason"].as_str().map_or_else(String::new, |r| format!("{} ({r})", told.status()))
        });
        let rows: Vec<Vec<String>> = reasons
            .into_iter()
            .filter(|(reason, _)| !reason.is_empty())
            .map(|(reason, n)| vec![reason, n.to_string()])
            .collect();
        text += &table(&["reason", "orders"], &rows);
        text += &format!("\n{}\n\n", output.bold("Books: the ledger, the journal of answers, the provider's file"));
        text += &self.books.text();
        let stages: Vec<String> = self.kills.iter().map(|kill| kill.stages().to_string()).collect();
        text += &format!(
            "\n{} orders in {:.1} s ({:.0} orders/s, as fast as the sale sends them), {} calls answered, {} repeated; \
             {} kills, with open sagas in {} stages\n",
            self.told.len(),
            self.seconds,
            self.orders_per_s(),
            self.run.shop.answered.load(Ordering::Relaxed),
            self.run.shop.repeated.load(Ordering::Relaxed),
            self.kills.len(),
            if stages.is_empty() { "no".to_owned() } else { stages.join(", ") },
        );
        for surprise in self.surprises().iter().take(10) {
            text += &format!("surprise: {surprise}\n");
        }
        let verdict = if self.verdict().is_ok() {
            "Every order is final and every book balances."
        } else {
            "NOT GOOD, see below."
        };
        text + &format!("{}\n", output.bold(verdict))
    }

    /// The exit code follows from it.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        let missing = self.told.len() - self.final_orders();
        let mut wrong = Vec::new();
        if missing > 0 {
            wrong.push(format!("{missing} orders are not final"));
        }
        if !self.open.is_empty() {
            let open: Vec<String> = self.open.iter().map(|(stage, n)| format!("{n} {stage}")).collect();
            wrong.push(format!("sagas are still open: {}", open.join(", ")));
        }
        wrong.extend(self.books.differences());
        if !self.surprises().is_empty() {
            wrong.push(format!("{} answers were wrong, the first: {}", self.surprises().len(), self.surprises()[0]));
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let hint = "run again with --keep DIR and look at DIR/worker.log and DIR/journal.ndjson";
        Err(Failure::no(wrong.join("\nerror: ")).hint(hint))
    }

    fn stories(&self) -> String {
        let statuses: Vec<String> = self.count(|told| told.status().to_owned()).into_keys().collect();
        let mut head = vec!["story", "orders"];
        head.extend(statuses.iter().map(String::as_str));
        head.push("then refunded");
        let row = |label: &str, told: &[&Told]| {
            let count = |wanted: &dyn Fn(&Told) -> bool| match told.iter().filter(|told| wanted(told)).count() {
                0 => String::new(),
                n => n.to_string(),
            };
            let mut row = vec![label.to_owned(), told.len().to_string()];
            row.extend(statuses.iter().map(|status| count(&|told| told.status() == status)));
            row.push(count(&|told| told.refund.is_some()));
            row
        };
        let of = |story| self.told.iter().filter(|told| told.story == story).collect::<Vec<_>>();
        let mut rows: Vec<Vec<String>> = Story::ALL
            .into_iter()
            .map(|story| (story, of(story)))
            .filter(|(_, told)| !told.is_empty())
            .map(|(story, told)| row(story.label(), &told))
            .collect();
        rows.push(row("all", &self.told.iter().collect::<Vec<_>>()));
        table(&head, &rows)
    }

    fn statuses_of(&self, story: Story) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for told in self.told.iter().filter(|told| told.story == story) {
            *counts.entry(told.status().to_owned()).or_default() += 1;
        }
        counts
    }

    fn count(&self, key: impl Fn(&Told) -> String) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for told in self.told {
            *counts.entry(key(told)).or_default() += 1;
        }
        counts
    }

    fn final_orders(&self) -> usize {
        self.told.iter().filter(|told| told.is_final()).count()
    }

    fn orders_per_s(&self) -> f64 {
        (self.told.len() as f64 / self.seconds.max(0.001)).round()
    }

    fn surprises(&self) -> Vec<String> {
        let all =
            self.told.iter().flat_map(|told| told.surprises.iter().map(move |text| format!("{}: {text}", told.order)));
        all.collect()
    }
}
