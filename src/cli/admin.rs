//! Commands about the whole system: dead letters, discrepancies, jobs, tokens, the books.

use super::args::{DeadlettersCommand, DiscrepancyCommand, JobCommand, TokenCommand};
use super::client::{Client, segment};
use super::failure::Failure;
use super::output::{Output, cell, items, members, table};
use reqwest::Method;
use serde_json::{Value, json};

/// `endstate deadletters ...`.
pub(super) async fn dead_letters(command: DeadlettersCommand, output: Output, client: &Client) -> Result<(), Failure> {
    match command {
        DeadlettersCommand::List { limit } => {
            let found = client.get("/v1/dead-letters", &[("limit", limit.to_string())]).await?;
            output.print(&found, |found| {
                items(found, &["id", "side", "topic", "at", "replayed_at", "replayed_by", "reason"])
            })
        }
        DeadlettersCommand::Replay { id, reason } => {
            let path = format!("/v1/dead-letters/{}/replay", segment(&id));
            output.print(&client.post(&path, &json!({ "reason": reason })).await?, members)
        }
    }
}

/// `endstate discrepancy ...`.
pub(super) async fn discrepancies(command: DiscrepancyCommand, output: Output, client: &Client) -> Result<(), Failure> {
    match command {
        DiscrepancyCommand::List { state, limit, cursor } => {
            let mut query = vec![("limit", limit.to_string())];
            query.extend((state != "all").then_some(("state", state)));
            query.extend(cursor.map(|cursor| ("cursor", cursor)));
            let found = client.get("/v1/discrepancies", &query).await?;
            output.print(&found, |found| {
                items(found, &["id", "at", "kind", "state", "saga", "detail", "closed_by", "close_reason"])
            })
        }
        DiscrepancyCommand::Close { id, state, reason } => {
            let path = format!("/v1/discrepancies/{}/close", segment(&id));
            output.print(&client.post(&path, &json!({ "state": state, "reason": reason })).await?, members)
        }
    }
}

/// `endstate job ...`.
pub(super) async fn jobs(command: JobCommand, output: Output, client: &Client) -> Result<(), Failure> {
    match command {
        JobCommand::List => {
            let found = client.get("/v1/jobs", &[]).await?;
            output.print(&found, |found| {
                let row = |job: &Value| {
                    let last = &job["last_run"];
                    let cells = [&job["job"], &job["schedule"], &last["started_at"], &last["outcome"], &job["about"]];
                    cells.map(cell).to_vec()
                };
                let rows: Vec<_> = found["items"].as_array().into_iter().flatten().map(row).collect();
                table(&["job", "schedule", "last run", "outcome", "about"], &rows)
            })
        }
        JobCommand::Run { job, dry_run, reason } => {
            let path = format!("/v1/jobs/{}/run", segment(&job));
            let ran = client.post(&path, &json!({ "reason": reason, "dry_run": dry_run })).await?;
            if ran.is_null() && output.is_text() {
                eprintln!("it still runs; look with: endstate job runs {job}");
            }
            output.print(&ran, members)?;
            match ran["outcome"].as_str() {
                Some("failed") => Err(Failure::no(format!("{job} failed: {}", cell(&ran["error"])))),
                _ => Ok(()),
            }
        }
        JobCommand::Runs { job, limit, cursor } => {
            let mut query = vec![("limit", limit.to_string())];
            query.extend(cursor.map(|cursor| ("cursor", cursor)));
            let found = client.get(&format!("/v1/jobs/{}/runs", segment(&job)), &query).await?;
            output.print(&found, |found| {
                items(
                    found,
                    &["started_at", "ended_at", "outcome", "dry_run", "found", "changed", "by", "reason", "error"],
                )
            })
        }
    }
}

/// `endstate token ...`.
pub(super) async fn tokens(command: TokenCommand, output: Output, client: &Client) -> Result<(), Failure> {
    match command {
        TokenCommand::Create { subject, scopes, expires_days } => {
            let body = json!({ "subject": subject, "scopes": scopes, "expires_days": expires_days });
            let made = client.post("/v1/tokens", &body).await?;
            if output.is_text() {
                eprintln!(
                    "token {} for {subject}; it is shown only this once",
                    made["id"].as_str().unwrap_or_default()
                );
            }
            output.print(&made, |made| format!("{}\n", made["token"].as_str().unwrap_or_default()))
        }
        TokenCommand::List => {
            let found = client.get("/v1/tokens", &[]).await?;
            output.print(&found, |found| items(found, &["id", "subject", "scopes", "expires_at", "revoked_at"]))
        }
        TokenCommand::Revoke { id } => {
            let path = format!("/v1/tokens/{}", segment(&id));
            output.print(&client.send(client.request(Method::DELETE, &path)).await?, members)
        }
    }
}

/// `endstate books`.
pub(super) async fn books(output: Output, client: &Client) -> Result<(), Failure> {
    let books = client.get("/v1/books", &[]).await?;
    output.print(&books, |books| {
        items(books, &["asset", "opened", "held", "used", "returned", "left", "owed", "balanced"])
    })
}
