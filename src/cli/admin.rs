//! Commands about the whole system: dead letters, bulk operations, tokens, the books.

use super::args::{BulkArgs, BulkCommand, DeadlettersCommand, TokenCommand};
use super::client::{Client, segment};
use super::failure::Failure;
use super::output::{Output, items, members};
use reqwest::Method;
use serde_json::{Value, json};

/// `endstate deadletters ...`.
pub(super) async fn dead_letters(command: DeadlettersCommand, output: Output, client: &Client) -> Result<(), Failure> {
    match command {
        DeadlettersCommand::List { limit } => {
            let found = client.get("/v1/dead-letters", &[("limit", limit.to_string())]).await?;
            output.print(&found, |found| items(found, &["id", "side", "topic", "at", "reason"]))
        }
        DeadlettersCommand::Replay { id, reason } => {
            let path = format!("/v1/dead-letters/{}/replay", segment(&id));
            output.print(&client.post(&path, &json!({ "reason": reason })).await?, members)
        }
    }
}

/// `endstate stock|points|coupons open|adjust`: the file's lines go to the server as one operation.
pub(super) async fn bulk(what: &str, command: BulkCommand, output: Output, client: &Client) -> Result<(), Failure> {
    let (operation, BulkArgs { file, operation: id }) = match command {
        BulkCommand::Open(args) => ("open", args),
        BulkCommand::Adjust(args) => ("adjust", args),
    };
    let text = super::definition::read(&file)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let entries: Vec<Value> = lines
        .map(|(number, line)| {
            serde_json::from_str(line).map_err(|error| {
                let place = format!("{}:{}:{}", file.display(), number + 1, error.column());
                Failure::usage(format!("{place}: error[E2901]: not a JSON object: {error}"))
            })
        })
        .collect::<Result<_, _>>()?;
    let request = client
        .request(Method::POST, &format!("/v1/{what}/{operation}"))
        .header("idempotency-key", &id)
        .json(&json!({ "operation": id, "entries": entries }));
    output.print(&client.send(request).await?, members)
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
    output.print(&books, |books| items(books, &["asset", "opened", "held", "used", "returned", "left"]))
}
