//! A person who looks: has what is parked go on, and closes the discrepancies that a case makes on purpose.

use super::load::Load;
use anyhow::ensure;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

/// How often the person looks.
const AGAIN: Duration = Duration::from_millis(500);

/// What a message that cannot be read leaves behind when its saga had ended.
const EXPLAINED: &str = "dead_letter";

/// Looks until dropped; ends only with an error.
pub(super) async fn work(load: &Load) -> anyhow::Error {
    loop {
        if let Err(error) = look(load).await {
            return error;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn look(load: &Load) -> anyhow::Result<()> {
    let office = &load.run.office;
    let text = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
    let parked = office.must(Method::GET, "/v1/sagas?phase=parked&limit=200", None, None).await?;
    for saga in parked["items"].as_array().into_iter().flatten() {
        let path = format!("/v1/sagas/{}/{}/retry", text(saga, "definition"), text(saga, "number"));
        let answer = office.call(Method::POST, &path, None, Some(&json!({ "reason": "looked at" }))).await?;
        // It may have gone on by itself meanwhile.
        ensure!(answer.status.is_success() || answer.status == 409, "{path}: {} {}", answer.status, answer.body);
    }
    let open = office.must(Method::GET, "/v1/discrepancies?state=open&limit=200", None, None).await?;
    let explained = |item: &&Value| item["kind"] == EXPLAINED;
    for item in open["items"].as_array().into_iter().flatten().filter(explained) {
        let path = format!("/v1/discrepancies/{}/close", item["id"]);
        let body = json!({ "state": "explained", "reason": "the message was made unreadable on purpose" });
        let answer = office.call(Method::POST, &path, None, Some(&body)).await?;
        ensure!(answer.status.is_success() || answer.status == 409, "{path}: {} {}", answer.status, answer.body);
    }
    Ok(())
}
