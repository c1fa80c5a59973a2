//! Orders for two audiences (A8): customers see theirs and only what is theirs to know, the back office sees all.

use super::model::{Linked, Page, SagaBody};
use super::read::{self, find, linked, list_call, page};
use super::start::ORDER;
use super::{Api, refuse, show};
use crate::view::{Filter, ViewRow};
use axum::Json as Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use endstate_events::Json;
use endstate_http::problem::ProblemBody;
use endstate_http::{Allowed, Caller, Params, Problem, Timestamp, headers, scope};
use serde::Serialize;
use utoipa::ToSchema;

/// An order as its buyer sees it; a closed list of members, whatever the definition's view holds.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CustomerOrder {
    /// The order's number.
    #[schema(example = "ORDER-20261122-000017")]
    pub number: String,
    /// created, awaiting_payment, paid, refunding, refund_failed, refunded, completed or closed.
    #[schema(example = "awaiting_payment")]
    pub status: String,
    /// Why it was closed or refunded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "unpaid")]
    pub closed_reason: Option<String>,
    /// What was bought.
    #[schema(value_type = Vec<Object>, example = json!([{"line_no": "1", "sku": "tea", "quantity": 1, "price_minor": 19900}]))]
    pub goods: Json,
    /// The currency of all amounts.
    #[schema(value_type = String, example = "CNY")]
    pub currency: Json,
    /// Before discounts, in minor units.
    #[schema(value_type = i64, example = 19900)]
    pub total_minor: Json,
    /// Taken off.
    #[schema(value_type = i64, example = 2000)]
    pub discount_minor: Json,
    /// Paid so far; 0 before payment.
    #[schema(value_type = i64, example = 17900)]
    pub paid_minor: Json,
    /// The payment's number at the provider, once opened.
    #[serde(skip_serializing_if = "Json::is_null")]
    #[schema(value_type = Option<String>, example = "PAY-17")]
    pub payment_no: Json,
    /// Where to pay, while payment is awaited.
    #[serde(skip_serializing_if = "Json::is_null")]
    #[schema(value_type = Option<String>)]
    pub pay_url: Json,
    /// When it was placed.
    pub placed_at: Timestamp,
    /// When it reached its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Refunds and late payments that belong to it; only in details.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub linked: Vec<Linked>,
}

/// An order as the back office sees it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BackOfficeOrder {
    /// What the customer sees.
    #[serde(flatten)]
    pub order: CustomerOrder,
    /// Who bought.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "u-1")]
    pub user: Option<String>,
    /// Which store sold.
    #[serde(skip_serializing_if = "Json::is_null")]
    #[schema(value_type = Option<String>, example = "flagship")]
    pub store: Json,
    /// The provider's own number of the payment that paid it.
    #[serde(skip_serializing_if = "Json::is_null")]
    #[schema(value_type = Option<String>)]
    pub provider_no: Json,
    /// Its saga, with phase and outcome.
    pub saga: SagaBody,
}

impl CustomerOrder {
    fn new(row: &ViewRow, linked: Vec<Linked>) -> Self {
        let member = |name: &str| row.view.get(name).cloned().unwrap_or_default();
        let amount = |name: &str| row.view.get(name).cloned().unwrap_or_else(|| 0.into());
        let awaiting = row.phase == "waiting";
        Self {
            number: row.number.clone(),
            status: row.status.clone(),
            closed_reason: row.reason.clone(),
            goods: member("lines"),
            currency: member("currency"),
            total_minor: amount("total_minor"),
            discount_minor: amount("discount_minor"),
            paid_minor: amount("paid_minor"),
            payment_no: member("payment_no"),
            pay_url: if awaiting { member("pay_url") } else { Json::Null },
            placed_at: Timestamp(row.started_ms),
            ended_at: row.ended_ms.map(Timestamp),
            linked,
        }
    }
}

impl BackOfficeOrder {
    fn new(row: ViewRow, linked: Vec<Linked>) -> Self {
        let member = |name: &str| row.view.get(name).cloned().unwrap_or_default();
        Self {
            order: CustomerOrder::new(&row, linked),
            user: row.owner.clone(),
            store: member("store"),
            provider_no: member("provider_no"),
            saga: row.into(),
        }
    }
}

async fn row(api: &Api, caller: &Caller, number: &str, headers: &HeaderMap) -> Result<(ViewRow, Vec<Linked>), Problem> {
    let (mut stored, definition) = find(&api.gateway, caller, ORDER, number).await?;
    if let Some(wait) = headers::wait(headers)? {
        api.gateway.news(stored.saga.id, Some(wait)).await.map_err(refuse::store)?;
        stored = api.gateway.get(stored.saga.id).await.map_err(refuse::store)?.unwrap_or(stored);
    }
    Ok((show::row(&definition, &stored.saga), linked(api, stored.saga.id).await?))
}

/// List all orders, newest first.
#[utoipa::path(
    get, path = "/v1/orders", operation_id = "listOrders", tag = "orders",
    params(
        ("number" = Option<String>, Query, description = "Beginning of the number"),
        ("owner" = Option<String>, Query, description = "The buyer"), ("goods" = Option<String>, Query, description = "A sku"),
        ("status" = Option<String>, Query), ("phase" = Option<String>, Query), ("outcome" = Option<String>, Query),
        ("search.NAME" = Option<String>, Query, description = "Another search attribute, such as `search.store`"),
        ("since" = Option<String>, Query), ("until" = Option<String>, Query),
        ("limit" = Option<i64>, Query), ("cursor" = Option<String>, Query),
    ),
    responses((status = 200, description = "A page", body = Page<BackOfficeOrder>)),
    security(("token" = ["orders:read"]))
)]
pub async fn list(
    State(api): State<Api>,
    _allowed: Allowed<scope::OrdersRead>,
    params: Params,
) -> Result<Body<Page<BackOfficeOrder>>, Problem> {
    let call = list_call(params, Filter { definition: Some(ORDER.into()), ..Filter::default() })?;
    Ok(Body(page(&api, call, |row| BackOfficeOrder::new(row, Vec::new())).await?))
}

/// Show an order to the back office.
#[utoipa::path(
    get, path = "/v1/orders/{number}", operation_id = "getOrder", tag = "orders",
    params(("number" = String, Path), ("Prefer" = Option<String>, Header, description = "`wait=N`")),
    responses(
        (status = 200, description = "The order", body = BackOfficeOrder),
        (status = 404, description = "E2202", body = ProblemBody, content_type = "application/problem+json"),
    ),
    security(("token" = ["orders:read"]))
)]
pub async fn get(
    State(api): State<Api>,
    Allowed(caller, ..): Allowed<scope::OrdersRead>,
    Path(number): Path<String>,
    headers: HeaderMap,
) -> Result<Body<BackOfficeOrder>, Problem> {
    let (row, linked) = row(&api, &caller, &number, &headers).await?;
    Ok(Body(BackOfficeOrder::new(row, linked)))
}

/// List one's own orders, newest first.
#[utoipa::path(
    get, path = "/v1/my/orders", operation_id = "listMyOrders", tag = "orders",
    params(
        ("number" = Option<String>, Query), ("goods" = Option<String>, Query), ("status" = Option<String>, Query),
        ("since" = Option<String>, Query), ("until" = Option<String>, Query),
        ("limit" = Option<i64>, Query), ("cursor" = Option<String>, Query),
    ),
    responses((status = 200, description = "A page", body = Page<CustomerOrder>)),
    security(("token" = ["orders:own"]))
)]
pub async fn my_list(
    State(api): State<Api>,
    Allowed(caller, ..): Allowed<scope::OrdersOwn>,
    params: Params,
) -> Result<Body<Page<CustomerOrder>>, Problem> {
    let fixed = Filter { definition: Some(ORDER.into()), owner: Some(caller.subject), ..Filter::default() };
    let call = list_call(params, fixed)?;
    Ok(Body(page(&api, call, |row| CustomerOrder::new(&row, Vec::new())).await?))
}

/// Show one of one's own orders.
#[utoipa::path(
    get, path = "/v1/my/orders/{number}", operation_id = "getMyOrder", tag = "orders",
    params(("number" = String, Path), ("Prefer" = Option<String>, Header, description = "`wait=N`")),
    responses(
        (status = 200, description = "The order", body = CustomerOrder),
        (status = 404, description = "E2202: also when it is somebody else's", body = ProblemBody, content_type = "application/problem+json"),
    ),
    security(("token" = ["orders:own"]))
)]
pub async fn my_get(
    State(api): State<Api>,
    Allowed(caller, ..): Allowed<scope::OrdersOwn>,
    Path(number): Path<String>,
    headers: HeaderMap,
) -> Result<Body<CustomerOrder>, Problem> {
    // A subject that may see more still sees only their own here.
    let (row, linked) = row(&api, &read::only_own(caller), &number, &headers).await?;
    Ok(Body(CustomerOrder::new(&row, linked)))
}
