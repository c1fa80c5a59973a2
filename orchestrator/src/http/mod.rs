//! The HTTP side of sagas. Every route reads, or queues an input; none writes saga state.
//!
//! - [`start`]: `POST /v1/sagas/DEFINITION`, `POST /v1/orders`
//! - [`read`]: one saga, its timeline, lists
//! - [`act`]: events in, cancel, what operators do; [`answer`]: what the saga said to it
//! - [`orders`]: orders as customers and the back office see them (A8)
//! - [`changes`]: status changes out, events of other teams in
//! - [`definitions`]: list, load, activate, roll back
//! - [`admin`]: dead letters, shards; [`discrepancies`]; [`jobs`]; [`tokens`]; [`rebuild`]: the view anew
//! - [`health`]: is it alive, ready; metrics; the API's description
//! - [`model`], [`refuse`], [`show`]: answers and refusals

pub mod start;
pub mod read;
pub mod act;
pub mod answer;
pub mod orders;
pub mod changes;
pub mod definitions;
pub mod admin;
pub mod discrepancies;
pub mod jobs;
pub mod tokens;
pub mod rebuild;
pub mod health;
pub mod model;
mod refuse;
pub mod show;

use crate::gateway::Gateway;
use crate::job::Jobs;
use crate::view::Lag;
use axum::Router;
use axum::middleware;
use endstate_events::ForeignTopic;
use endstate_http::auth::{self, Identity};
use endstate_http::guard::{self, Drain, Limits};
use endstate_http::{Scope, Tokens};
use endstate_outbox::Census;
use std::ops::Deref;
use std::sync::Arc;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What the routes work with, shared: a router copies its state many times a call.
#[derive(Clone)]
pub struct Api(Arc<Parts>);

/// What the routes work with.
pub struct Parts {
    /// Queues inputs and reads sagas.
    pub gateway: Gateway,
    /// Who may call.
    pub tokens: Arc<Tokens>,
    /// Set when the server should get no more work.
    pub drain: Drain,
    /// Scheduled jobs.
    pub jobs: Arc<Jobs>,
    /// Which shards of this process are assigned.
    pub shards: Census,
    /// How far the view is behind; none where other processes keep it.
    pub view_lag: Option<Arc<Lag>>,
    /// Topics of other teams that are listened to, and the participant that speaks in each, if one does.
    pub tellers: Vec<(ForeignTopic, Option<String>)>,
    /// Renders the metrics, if somebody records them.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Api {
    fn lag_ms(&self) -> Option<i64> {
        self.view_lag.as_ref().map(|lag| lag.ms())
    }
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Endstate",
        description = "Sagas that reach a final state, with stock, coupons, points and money that add up when they do.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "orders", description = "Orders as customers and the back office see them"),
        (name = "sagas", description = "Sagas of any definition"),
        (name = "operators", description = "What people do when a saga needs them; every call needs a reason"),
        (name = "events", description = "Status changes out, events in"),
        (name = "definitions", description = "What sagas are made from"),
        (name = "participants", description = "Callbacks, stock, points, coupons, books"),
        (name = "system", description = "Health, dead letters, shards, jobs, tokens"),
    ),
    // Answers that routes share are not collected with the routes.
    components(schemas(model::Acted))
)]
struct Description;

/// The routes of sagas and the description of them; the participants' routes are merged into it before
/// [`serve`] puts the guards around all.
#[must_use]
pub fn routes(parts: Parts) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(start::start))
        .routes(routes!(start::start_order, orders::list))
        .routes(routes!(read::get))
        .routes(routes!(read::list))
        .routes(routes!(read::timeline))
        .routes(routes!(act::event))
        .routes(routes!(act::cancel))
        .routes(routes!(act::retry))
        .routes(routes!(act::compensate))
        .routes(routes!(act::force))
        .routes(routes!(act::wake))
        .routes(routes!(orders::get))
        .routes(routes!(orders::my_list))
        .routes(routes!(orders::my_get))
        .routes(routes!(changes::changes, changes::receive))
        .routes(routes!(definitions::list, definitions::load))
        .routes(routes!(definitions::activate))
        .routes(routes!(definitions::roll_back))
        .routes(routes!(admin::dead_letters))
        .routes(routes!(admin::replay))
        .routes(routes!(discrepancies::list))
        .routes(routes!(discrepancies::close))
        .routes(routes!(admin::shards))
        .routes(routes!(rebuild::rebuild))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::runs))
        .routes(routes!(jobs::run))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(health::startupz))
        .routes(routes!(health::metrics))
        .routes(routes!(health::error_page))
        .routes(routes!(health::error_index))
        .routes(routes!(health::runbook_page))
        .routes(routes!(health::runbook_index))
        .with_state(Api(Arc::new(parts)))
}

/// Completes a router: description at `/openapi.json`, who calls, limits, metrics. `identity` must hold the same tokens
/// as [`Parts`].
pub fn serve(routes: OpenApiRouter, identity: Identity, limits: Limits) -> Router {
    let (router, description) = OpenApiRouter::with_openapi(Description::openapi()).merge(routes).split_for_parts();
    let text: Arc<str> = spell(&complete(description)).into();
    let router = router.route("/openapi.json", axum::routing::get(move || health::description(Arc::clone(&text))));
    guard::guarded(router.layer(middleware::from_fn_with_state(identity, auth::identify)), limits)
}

/// The API's description, as `/openapi.json` gives it and `docs/openapi.json` keeps it.
#[must_use]
pub fn description(routes: OpenApiRouter) -> String {
    let (_, description) = OpenApiRouter::<()>::with_openapi(Description::openapi()).merge(routes).split_for_parts();
    spell(&complete(description))
}

fn spell(description: &OpenApi) -> String {
    let mut text = description.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

fn complete(mut description: OpenApi) -> OpenApi {
    let scopes: Vec<_> =
        Scope::ALL.iter().map(|scope| format!("- `{}`: {}", scope.label(), scope.describe())).collect();
    let bearer = Http::builder()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(format!("Scopes:\n{}", scopes.join("\n"))))
        .build();
    let components = description.components.get_or_insert_default();
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    description
}
