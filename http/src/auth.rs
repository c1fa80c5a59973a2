//! Who calls: a token's bearer, or, while no token exists, whoever sits on this machine.

use crate::scope::{Needs, Scope, Scopes};
use crate::token::{Refusal, Tokens};
use crate::{Code, Problem};
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::{HeaderMap, header, request::Parts};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use endstate_outbox::Clock;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::Arc;

/// The subject while no token exists.
pub const LOCAL: &str = "local";

/// Who calls and what they may do. As an extractor it only asks for a valid token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The token's subject.
    pub subject: String,
    /// The token's scopes.
    pub scopes: Scopes,
}

impl Caller {
    /// True when the caller has the scope.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.has(scope)
    }

    /// Refuses a caller with none of these scopes.
    pub fn need_any(&self, scopes: &[Scope]) -> Result<(), Problem> {
        if scopes.iter().any(|scope| self.may(*scope)) {
            return Ok(());
        }
        let needed: Vec<_> = scopes.iter().map(|scope| scope.label()).collect();
        Err(Problem::new(Code::ScopeMissing, format!("this needs the scope {}", needed.join(" or "))))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let known = parts.extensions.get::<Result<Self, Problem>>().cloned();
        known.unwrap_or_else(|| Err(Problem::new(Code::TokenMissing, "no token was given")))
    }
}

/// A caller that has one of the scopes of `S`. Put it first among a handler's arguments: nothing else is read before it agrees.
#[derive(Debug)]
pub struct Allowed<S>(pub Caller, pub PhantomData<S>);

impl<S: Needs, T: Send + Sync> FromRequestParts<T> for Allowed<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &T) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        caller.need_any(S::ANY)?;
        Ok(Self(caller, PhantomData))
    }
}

/// What [`identify`] needs.
#[derive(Clone)]
pub struct Identity {
    /// The tokens.
    pub tokens: Arc<Tokens>,
    /// Tells when a token expires.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// Middleware: finds out who calls and leaves it for the extractors. Routes without one (health, signed callbacks) work
/// for everybody.
pub async fn identify(State(identity): State<Identity>, mut request: Request, next: Next) -> Response {
    let caller = judge(&identity, &request);
    // A wrong token is refused everywhere; a missing one only where a caller is needed.
    if let Err(problem) = &caller
        && problem.code == Code::TokenInvalid
    {
        return problem.clone().into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

fn judge(identity: &Identity, request: &Request) -> Result<Caller, Problem> {
    let headers = request.headers();
    if identity.tokens.is_empty() {
        return local(request);
    }
    let presented = bearer(headers)?;
    match identity.tokens.check(presented, identity.clock.now_ms()) {
        Ok(token) => Ok(Caller { subject: token.subject, scopes: token.scopes }),
        Err(refusal) => Err(Problem::new(
            Code::TokenInvalid,
            match refusal {
                Refusal::Unknown => "the token is unknown",
                Refusal::Expired => "the token has expired",
                Refusal::Revoked => "the token was revoked",
            },
        )),
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing = || Problem::new(Code::TokenMissing, "send `Authorization: Bearer TOKEN`");
    let text = headers.get(header::AUTHORIZATION).ok_or_else(missing)?.to_str().map_err(|_| missing())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(missing()) }
}

/// Everything is allowed, but only to a peer on this machine that also names this machine: a web page that got its own
/// name resolved to 127.0.0.1 (DNS rebinding) sends its own name as host. Nor does a page of another origin pass: browsers
/// send its calls, if they need no header or body of their own, without asking us first.
fn local(request: &Request) -> Result<Caller, Problem> {
    let refused = |detail: &str| Err(Problem::new(Code::LoopbackOnly, detail));
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    if !peer.is_some_and(|ConnectInfo(address)| address.ip().to_canonical().is_loopback()) {
        return refused("create a token first (`endstate token create`)");
    }
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if host.is_some_and(|host| !names_this_machine(host)) {
        return refused("the Host header does not name this machine");
    }
    if is_of_another_origin(request, host) {
        return refused("a page of another origin may not call: create a token first (`endstate token create`)");
    }
    Ok(Caller { subject: LOCAL.to_owned(), scopes: Scopes::all() })
}

/// As a browser says it, of a page that was not loaded from `host`. Links that lead here are followed.
fn is_of_another_origin(request: &Request, host: Option<&str>) -> bool {
    let said = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    match said("origin") {
        Some(origin) => {
            let own = origin.split_once("://").map(|(_, authority)| authority);
            !own.zip(host).is_some_and(|(own, host)| own.eq_ignore_ascii_case(host))
        }
        None => !request.method().is_safe() && said("sec-fetch-site").is_some_and(|site| site.ends_with("-site")),
    }
}

fn names_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_this_machine() {
        for host in ["localhost", "localhost:7900", "127.0.0.1:7900", "[::1]:7900"] {
            assert!(names_this_machine(host), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example:7900", "127.0.0.1.evil.example", "10.0.0.1", "", "[", "[::2]"]
        {
            assert!(!names_this_machine(host), "{host}");
        }
    }
}
