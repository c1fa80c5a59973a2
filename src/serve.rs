//! temporary
use crate::node::Node;
use axum::{
    Json, Router,
    extract::{Path, State},
    routing::post,
};
use endstate_orchestrator::gateway::{Gateway, StartOptions};
use std::time::Duration;

pub(crate) fn plain(listener: tokio::net::TcpListener, node: &Node) -> impl Future<Output = ()> + Send + 'static {
    let router = Router::new().route("/v1/sagas/{definition}", post(start)).with_state(node.gateway.clone());
    async move {
        axum::serve(listener, router).await.ok();
    }
}

async fn start(
    State(gateway): State<Gateway>,
    Path(definition): Path<String>,
    Json(input): Json<serde_json::Value>,
) -> Result<Json<serde_json::Value>, String> {
    let options = StartOptions { wait: Some(Duration::from_secs(30)), ..StartOptions::default() };
    let started = gateway.start(&definition, input, options).await.map_err(|e| e.to_string())?;
    Ok(Json(serde_json::json!({"saga": started.saga, "outcome": started.notice.outcome.map(|o| o.label())})))
}
