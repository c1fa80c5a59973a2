//! Single sagas on a server: start, look, act. Orders are sagas of one definition.

use super::args::{End, ListArgs, OrderAct, OrderCommand, SagaAct, SagaCommand, SagaName};
use super::client::{Client, segment};
use super::definition;
use super::failure::Failure;
use super::output::{Output, cell, items, members, table};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

const ORDER: &str = "flash_sale_order";

/// `endstate saga ...`.
pub(super) async fn run(
    command: SagaCommand,
    output: Output,
    client: impl Fn() -> Result<Client, Failure>,
) -> Result<(), Failure> {
    match command {
        SagaCommand::Check { file } => definition::check(&file.file, output),
        SagaCommand::Test { file } => definition::test(&file.file, output),
        SagaCommand::Diagram { file, svg } => definition::diagram(&file.file, svg, output),
        SagaCommand::Schema { what } => definition::schema(what, output),
        SagaCommand::Load { file, activate } => definition::load(&file, activate, output, &client()?).await,
        SagaCommand::Activate { definition, version } => {
            let path = format!("/v1/definitions/{}/activate", segment(&definition));
            output.print(&client()?.post(&path, &json!({ "version": version })).await?, versions)
        }
        SagaCommand::Rollback { definition } => {
            let path = format!("/v1/definitions/{}/rollback", segment(&definition));
            output.print(&client()?.post(&path, &json!({})).await?, versions)
        }
        SagaCommand::Start { definition, input, wait } => start(&definition, &input, wait, output, &client()?).await,
        SagaCommand::Get(name) => get(&name, output, &client()?).await,
        SagaCommand::List { definition, filter } => list(definition.as_deref(), &filter, output, &client()?).await,
        SagaCommand::Timeline(name) => timeline(&name, output, &client()?).await,
        SagaCommand::Cancel(args) => operate(&args, "cancel", output, &client()?).await,
        SagaCommand::Retry(args) => operate(&args, "retry", output, &client()?).await,
        SagaCommand::Compensate(args) => operate(&args, "compensate", output, &client()?).await,
        SagaCommand::Force { act: args, end } => force(&args, end, output, &client()?).await,
        SagaCommand::Wake { definition, step, reason } => {
            let path = format!("/v1/definitions/{}/steps/{}/wake", segment(&definition), segment(&step));
            output.print(&client()?.post(&path, &json!({ "reason": reason })).await?, members)
        }
    }
}

fn versions(found: &Value) -> String {
    items(found, &["name", "version", "active", "sha256"])
}

/// `endstate order ...`.
pub(super) async fn run_order(command: OrderCommand, output: Output, client: &Client) -> Result<(), Failure> {
    let name = |number| SagaName { definition: ORDER.to_owned(), number };
    let operated = |args: OrderAct| SagaAct { saga: name(args.number), reason: args.reason, wait: args.wait };
    match command {
        OrderCommand::Get { number } => get(&name(number), output, client).await,
        OrderCommand::List(filter) => list(Some(ORDER), &filter, output, client).await,
        OrderCommand::Timeline { number } => timeline(&name(number), output, client).await,
        OrderCommand::Cancel(args) => operate(&operated(args), "cancel", output, client).await,
        OrderCommand::Retry(args) => operate(&operated(args), "retry", output, client).await,
        OrderCommand::Compensate(args) => operate(&operated(args), "compensate", output, client).await,
        OrderCommand::Force { act: args, end } => force(&operated(args), end, output, client).await,
    }
}

async fn start(
    definition: &str,
    input: &std::path::Path,
    wait: Option<u32>,
    output: Output,
    client: &Client,
) -> Result<(), Failure> {
    let input: Value = serde_json::from_str(&super::definition::read(input)?)
        .map_err(|error| Failure::usage(format!("{}: not JSON: {error}", input.display())))?;
    let request = client.request(Method::POST, &format!("/v1/sagas/{}", segment(definition))).json(&input);
    let answer = client.send(waiting(request, wait)).await?;
    if output.is_text() && answer.get("saga").is_none_or(Value::is_null) {
        let number = answer["number"].as_str().unwrap_or_default();
        eprintln!("not decided yet; look with: endstate saga get {definition} {number}");
    }
    output.print(&answer, members)
}

fn path(name: &SagaName, rest: &str) -> String {
    format!("/v1/sagas/{}/{}{rest}", segment(&name.definition), segment(&name.number))
}

async fn get(name: &SagaName, output: Output, client: &Client) -> Result<(), Failure> {
    output.print(&client.get(&path(name, ""), &[]).await?, members)
}

async fn list(definition: Option<&str>, filter: &ListArgs, output: Output, client: &Client) -> Result<(), Failure> {
    let mut query = vec![("limit", filter.limit.to_string())];
    let named = [
        ("definition", definition),
        ("status", filter.status.as_deref()),
        ("phase", filter.phase.as_deref()),
        ("owner", filter.owner.as_deref()),
        ("cursor", filter.cursor.as_deref()),
    ];
    query.extend(named.into_iter().filter_map(|(name, value)| Some((name, value?.to_owned()))));
    let found = client.get("/v1/sagas", &query).await?;
    output.print(&found, |found| {
        items(found, &["definition", "number", "phase", "status", "outcome", "reason", "updated_at"])
    })
}

async fn timeline(name: &SagaName, output: Output, client: &Client) -> Result<(), Failure> {
    let found = client.get(&path(name, "/timeline"), &[]).await?;
    output.print(&found, |found| {
        let rows = found["items"].as_array().into_iter().flatten();
        let rows: Vec<Vec<String>> = rows
            .map(|event| vec![cell(&event["at"]), cell(&event["version"]), cell(&event["event"]), cell(&event["data"])])
            .collect();
        table(&["at", "version", "event", "data"], &rows)
    })
}

async fn operate(args: &SagaAct, operation: &str, output: Output, client: &Client) -> Result<(), Failure> {
    act(args, operation, json!({ "reason": args.reason }), output, client).await
}

async fn force(args: &SagaAct, end: End, output: Output, client: &Client) -> Result<(), Failure> {
    let end = match end {
        End::Completed => "completed",
        End::Cancelled => "cancelled",
    };
    act(args, "force", json!({ "reason": args.reason, "end": end }), output, client).await
}

/// Tells what the saga said; its refusal is a failure with its code.
async fn act(args: &SagaAct, operation: &str, body: Value, output: Output, client: &Client) -> Result<(), Failure> {
    let request = client.request(Method::POST, &path(&args.saga, &format!("/{operation}"))).json(&body);
    let answer = client.send(waiting(request, args.wait)).await?;
    if output.is_text() && answer["answer"] == "queued" {
        let SagaName { definition, number } = &args.saga;
        eprintln!("not decided yet; look with: endstate saga timeline {definition} {number}");
    }
    output.print(&answer, members)
}

fn waiting(request: RequestBuilder, seconds: Option<u32>) -> RequestBuilder {
    match seconds {
        Some(seconds) => request.header("prefer", format!("wait={seconds}")),
        None => request,
    }
}
