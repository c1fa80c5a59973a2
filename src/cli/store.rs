//! The database of a system of many processes, before it is used: `endstate migrate` and `endstate doctor`.

use super::failure::{Exit, Failure};
use super::output::{Output, table};
use crate::config::Config;
use endstate_outbox::PostgresStore;
use endstate_outbox::postgres::Settings;
use endstate_outbox::postgres::examine::{Finding, Grade, examine};
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a broker may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// Applies what is missing.
pub(crate) async fn migrate(config: Option<&Path>, output: Output) -> Result<(), Failure> {
    let config = Config::load(config, std::env::vars())?;
    let settings = settings(&config)?;
    let applied = PostgresStore::migrate(&settings.url).await.map_err(|error| Failure::no(error.to_string()))?;
    output.print(&json!({ "applied": applied }), |_| match applied.as_slice() {
        [] => "nothing to do: every migration was applied before\n".to_owned(),
        names => names.iter().map(|name| format!("{name} applied\n")).collect(),
    })
}

/// Reports what people should know before they trust it; changes nothing.
pub(crate) async fn doctor(config: Option<&Path>, output: Output) -> Result<(), Failure> {
    let config = Config::load(config, std::env::vars())?;
    let settings = settings(&config)?;
    let statements = [
        endstate_outbox::statements(),
        endstate_http::statements(),
        endstate_orchestrator::statements(),
        endstate_participants::statements(),
        PostgresStore::statements(),
    ];
    let mut findings = examine(&settings, &statements.concat()).await;
    for broker in config.kafka.brokers.split(',').map(str::trim).filter(|broker| !broker.is_empty()) {
        findings.push(broker_answers(broker).await);
    }
    let rows: Vec<_> =
        findings.iter().map(|f| [f.check, f.grade.label(), &f.text].map(str::to_owned).to_vec()).collect();
    let value =
        findings.iter().map(|f| json!({ "check": f.check, "grade": f.grade.label(), "text": f.text })).collect();
    output.print(&value, |_| table(&["check", "grade", "finding"], &rows))?;
    let bad = findings.iter().filter(|finding| finding.grade == Grade::Bad).count();
    match findings.iter().find(|finding| finding.grade == Grade::Bad) {
        None => Ok(()),
        Some(first) => {
            let exit = if first.check == "reach" { Exit::Unreachable } else { Exit::No };
            Err(Failure { exit, message: format!("{bad} of {} findings are bad", findings.len()), hint: None })
        }
    }
}

fn settings(config: &Config) -> Result<Settings, Failure> {
    let url = config.store.url.reveal();
    if url.is_empty() {
        let hint = "set ENDSTATE_STORE_URL, or store.url in the file of --config; the embedded store needs neither";
        return Err(Failure::usage("no PostgreSQL is configured").hint(hint));
    }
    Ok(crate::ground::postgres(config))
}

async fn broker_answers(broker: &str) -> Finding {
    let (grade, text) = match timeout(PATIENCE, TcpStream::connect(broker)).await {
        Ok(Ok(_)) => (Grade::Good, format!("{broker} accepts connections")),
        Ok(Err(error)) => (Grade::Bad, format!("{broker}: {error}")),
        Err(_) => (Grade::Bad, format!("{broker} does not answer")),
    };
    Finding { check: "kafka", grade, text }
}
