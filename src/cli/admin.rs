//! Commands about the whole system: dead letters, tokens, the books.

use super::args::{DeadlettersCommand, TokenCommand};
use super::client::{Client, segment};
use super::failure::Failure;
use super::output::{Output, items, members};
use reqwest::Method;
use serde_json::json;

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
