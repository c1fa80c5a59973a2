//! The API's saga side over a node, shared by `dev` and `bench`: the projector and the routes.

use crate::cli::args::Role;
use crate::node::Node;
use endstate_events::ForeignTopic;
use endstate_http::Tokens;
use endstate_http::guard::Drain;
use endstate_orchestrator::http;
use endstate_orchestrator::view::Projector;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;

/// Starts the projector and returns the routes of sagas. `metrics` renders what `/metrics` answers; `tellers` speak in
/// topics of other teams.
pub(crate) async fn sagas(
    node: &Node,
    tokens: &Arc<Tokens>,
    drain: &Drain,
    metrics: Arc<dyn Fn() -> String + Send + Sync>,
    tellers: Vec<(ForeignTopic, Option<String>)>,
) -> anyhow::Result<OpenApiRouter> {
    let projector = Projector::open(node.store.clone(), node.definitions.clone(), node.clock.clone()).await?;
    let mut view_lag = None;
    // The view of a saga is kept where the saga is decided.
    if node.has(Role::Orchestrator) {
        let projector = match node.owned() {
            Some(owned) => projector.among_others(owned),
            None => projector,
        };
        view_lag = Some(projector.lag());
        node.tasks.spawn(projector.run(node.stop_token()));
    }
    Ok(http::routes(http::Parts {
        gateway: node.gateway.clone(),
        tokens: tokens.clone(),
        drain: drain.clone(),
        jobs: node.jobs(),
        shards: node.shards.clone(),
        view_lag,
        tellers,
        metrics,
    }))
}
