//! The database of a system of many processes, before it is used: `endstate migrate` and `endstate doctor`.

use super::failure::{Exit, Failure};
use super::output::{Output, table};
use crate::config::Config;
use endstate_outbox::kafka::OpenError;
use endstate_outbox::postgres::Settings;
use endstate_outbox::postgres::examine::{Finding, Grade, examine};
use endstate_outbox::{KafkaBus, KafkaSettings, PostgresStore};
use serde_json::json;
use std::path::Path;

/// Help of the doctor.
pub(crate) const DOCTOR: &str = "\
Examples:
  endstate doctor --config shop.toml
  endstate doctor -o json
  ENDSTATE_REDIS_URL=redis://:secret@127.0.0.1:6379/ endstate doctor

Grades: good; mind (it works, and something is not promised); bad (nothing may run on it). What cannot be asked because
something before it is bad is left out.

Exit codes: 0 all is good, 1 something to mind, 2 something bad, a service that does not answer, or a wrong setting.";

/// Applies what is missing; waits for a database that is coming up, as a server does.
pub(crate) async fn migrate(config: Option<&Path>, output: Output) -> Result<(), Failure> {
    let config = Config::load(config, std::env::vars())?;
    let settings = settings(&config)?;
    // It says what it waits for.
    crate::dev::start_logging(&config)?;
    let applied = crate::ground::migrated(&settings).await.map_err(|error| Failure::no(error.to_string()))?;
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
    let kafka = crate::ground::kafka(&config, settings.partitions)?;
    let mut findings = examine(&settings, &statements.concat(), kafka.retention).await;
    if config.kafka.brokers.is_empty() {
        let (check, grade, text) = ("kafka.reach", Grade::Mind, "kafka.brokers is empty".to_owned());
        let advice = "set it: `endstate serve` runs on PostgreSQL and Kafka together".to_owned();
        findings.push(Finding { check, grade, text, advice });
    } else {
        findings.extend(endstate_outbox::kafka::examine::examine(&kafka).await);
        findings.extend(belongs(&settings, &kafka).await);
    }
    if !config.redis.url.reveal().is_empty() {
        findings.extend(endstate_outbox::redis_examine::examine(config.redis.url.reveal()).await);
    }
    let rows: Vec<_> =
        findings.iter().map(|f| [f.check, f.grade.label(), &f.text, &f.advice].map(str::to_owned).to_vec()).collect();
    let one = |f: &Finding| json!({ "check": f.check, "grade": f.grade.label(), "text": f.text, "advice": f.advice });
    output
        .print(&findings.iter().map(one).collect(), |_| table(&["check", "grade", "finding", "what to do"], &rows))?;
    let count = |grade| findings.iter().filter(|finding| finding.grade == grade).count();
    let exit = match (count(Grade::Bad), count(Grade::Mind)) {
        (0, 0) => return Ok(()),
        (0, _) => Exit::No,
        // As with a wrong setting: nothing may run like this.
        (_, _) => Exit::Usage,
    };
    let (bad, mind) = (count(Grade::Bad), count(Grade::Mind));
    Err(Failure {
        exit,
        message: format!("of {} findings, {bad} are bad and {mind} to mind", findings.len()),
        hint: None,
    })
}

/// Whether store and brokers go with each other, and nobody else has the environment there. Nothing is said where one of them
/// cannot be asked: what they lack is said already.
async fn belongs(settings: &Settings, kafka: &KafkaSettings) -> Option<Finding> {
    let store = PostgresStore::watch(settings).await.ok()?;
    let (id, kept) = (store.id().await.ok()?, store.cluster().await.ok()?);
    let (found, claimed) = (KafkaBus::cluster(kafka).await.ok()?, KafkaBus::claimed(kafka).await);
    let claimed = match claimed {
        Err(unread @ OpenError::Unread { .. }) => {
            let advice = "see whether its partition has a leader".to_owned();
            return Some(Finding { check: "kafka.belongs", grade: Grade::Mind, text: unread.to_string(), advice });
        }
        claimed => claimed.ok()?,
    };
    let environment = &kafka.environment;
    let (grade, text, advice) = match (kept, claimed) {
        (Some(kept), _) if kept != found => {
            let text = format!("the store goes with cluster {kept}, and these brokers are {found}");
            (Grade::Bad, text, format!("correct kafka.brokers, or: endstate broker adopt {found}"))
        }
        (_, Some(theirs)) if theirs != id => {
            let text = format!("environment `{environment}` there belongs to store {theirs}, and this one is {id}");
            (Grade::Bad, text, "choose another environment; see E4068".to_owned())
        }
        (Some(_), Some(_)) => (Grade::Good, format!("store {id} has environment `{environment}` there"), String::new()),
        (None, _) | (_, None) => {
            (Grade::Good, format!("store {id} is not known there yet, nor any other"), String::new())
        }
    };
    Some(Finding { check: "kafka.belongs", grade, text, advice })
}

/// The database that is configured.
pub(super) fn settings(config: &Config) -> Result<Settings, Failure> {
    let url = config.store.url.reveal();
    if url.is_empty() {
        let hint = "set ENDSTATE_STORE_URL, or store.url in the file of --config; the embedded store needs neither";
        return Err(Failure::usage("no PostgreSQL is configured").hint(hint));
    }
    Ok(crate::ground::postgres(config))
}
