//! Definition files: check, test, draw, load.

use super::client::{Client, segment};
use super::failure::Failure;
use super::output::{Output, items};
use endstate_saga::check::{check as check_samples, explore};
use endstate_saga::definition::{Definition, Diagnostic, Source};
use endstate_saga::model::{Options, SampleReport};
use serde_json::json;
use std::io::Read;
use std::path::Path;

/// `endstate saga check`: loads, runs the samples, explores.
pub(super) fn check(file: &Path, output: Output) -> Result<(), Failure> {
    let definition = loaded(&source(file)?)?;
    let report = explore(&definition, &Options::default()).map_err(|diagnostics| complaints(&diagnostics))?;
    let samples: Vec<_> = report.samples.iter().map(explored).collect();
    let found = json!({ "definition": definition.name(), "version": definition.version(), "samples": samples });
    output.print(&found, |_| {
        let lines: String = report.samples.iter().map(|sample| format!("  {sample}\n")).collect();
        format!("{} version {}: good\n{lines}", definition.name(), definition.version())
    })
}

fn explored(sample: &SampleReport) -> serde_json::Value {
    json!({
        "name": sample.name,
        "states": sample.states,
        "moves": sample.edges,
        "depth": sample.depth,
        "ends": sample.ends,
        "millis": sample.millis,
        "bytes": sample.bytes,
    })
}

/// `endstate saga load`: checks here, then sends it.
pub(super) async fn load(file: &Path, activate: bool, output: Output, client: &Client) -> Result<(), Failure> {
    let source = source(file)?;
    let definition = loaded(&source)?;
    let body = serde_json::to_value(&source).map_err(anyhow::Error::from)?;
    let mut found = client.post("/v1/definitions", &body).await?;
    if activate {
        let path = format!("/v1/definitions/{}/activate", segment(definition.name()));
        found = client.post(&path, &json!({ "version": definition.version() })).await?;
    }
    output.print(&found, |found| items(found, &["name", "version", "active", "sha256"]))
}

fn source(file: &Path) -> Result<Source, Failure> {
    Source::read(file).map_err(|diagnostic| complaints(&[diagnostic]))
}

fn loaded(source: &Source) -> Result<Definition, Failure> {
    let definition = Definition::load(source).map_err(|diagnostics| complaints(&diagnostics))?;
    match check_samples(&definition) {
        diagnostics if diagnostics.is_empty() => Ok(definition),
        diagnostics => Err(complaints(&diagnostics)),
    }
}

fn complaints(diagnostics: &[Diagnostic]) -> Failure {
    Failure::no(diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

/// Text of a file, or of standard input for `-`.
pub(super) fn read(file: &Path) -> Result<String, Failure> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(file).map_err(|error| Failure::usage(format!("cannot read {}: {error}", file.display())))
}
