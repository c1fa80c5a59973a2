//! Definition files: check, test, draw, load.

use super::args::SchemaOf;
use super::client::{Client, segment};
use super::failure::Failure;
use super::output::{Output, items};
use endstate_saga::cases::{CaseFile, run_cases};
use endstate_saga::check::{check as check_samples, explore};
use endstate_saga::definition::{Definition, Diagnostic, Source};
use endstate_saga::model::{Options, SampleReport};
use endstate_saga::{diagram, schema};
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

/// `endstate saga test`: plays the cases beside a definition.
pub(super) fn test(file: &Path, output: Output) -> Result<(), Failure> {
    let definition = loaded(&source(file)?)?;
    let files = CaseFile::beside(file, definition.name());
    if files.is_empty() {
        let folder = format!("cases/{}", definition.name());
        return Err(Failure::no(format!("{} has no cases: {folder}/*.yaml is not there", definition.name()))
            .hint("docs/language.md shows how cases are written"));
    }
    let report = run_cases(&definition, &files);
    let failures: Vec<String> = report.failures.iter().map(ToString::to_string).collect();
    let found = json!({ "passed": report.passed, "failures": failures, "uncovered": report.uncovered });
    output.print(&found, |_| {
        let passed = report.passed.iter().map(|name| format!("ok    {name}\n"));
        let uncovered = report.uncovered.iter().map(|way| format!("not covered: {way}\n"));
        let counts = format!("{} passed, {} failed\n", report.passed.len(), failures.len());
        passed.chain(uncovered).chain([counts]).collect()
    })?;
    if report.failures.is_empty() { Ok(()) } else { Err(complaints(&report.failures)) }
}

/// `endstate saga diagram`: Mermaid text, or a picture.
pub(super) fn diagram(file: &Path, svg: bool, output: Output) -> Result<(), Failure> {
    // A definition is drawn also when its samples are not good yet.
    let definition = Definition::load(&source(file)?).map_err(|diagnostics| complaints(&diagnostics))?;
    output.raw(&if svg { diagram::svg(&definition) } else { diagram::mermaid(&definition) })
}

/// `endstate saga schema`: for editors.
pub(super) fn schema(what: SchemaOf, output: Output) -> Result<(), Failure> {
    output.raw(match what {
        SchemaOf::Definition => schema::DEFINITION,
        SchemaOf::Catalogue => schema::CATALOGUE,
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
