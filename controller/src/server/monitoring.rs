//! What people's own monitoring asks for in plain HTTP: what serves where, for Prometheus to find, and what happened, for
//! dashboards to mark.
//!
//! Must not know: what is decided, or how a connection came to be. It changes nothing and reads no request's body.
//!
//! Main type: [`Monitoring`]; [`http1`] is for those who speak no HTTP/2. Operators' tokens (or certificates) open
//! it, and what a token may not see is not there.

mod annotations;
mod discovery;
pub(super) mod http1;
mod parameters;

use std::sync::Arc;

use api::Verb;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use serde::Serialize;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::Shared;
use super::web::{response, text};
use super::who::{Operator, stopping, wrong};
use crate::engine::Engine;
use crate::status::clock_ms;

/// Where Prometheus looks for targets (`http_sd_configs`).
const DISCOVERY: &str = "/v1/discovery/prometheus";
/// Where dashboards look for what happened.
const ANNOTATIONS: &str = "/v1/annotations";

/// Answers what is asked for in plain HTTP.
#[derive(Clone)]
pub(super) struct Monitoring(pub(super) Arc<Shared>);

/// What a path stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Discovery,
    Annotations,
}

// === impl Monitoring ===

impl Monitoring {
    /// One request, up to its body.
    pub(super) async fn answer(&self, request: Parts) -> Response<String> {
        if is_grpc(&request) {
            // As gRPC's own server says of what it does not know.
            return Status::unimplemented("").into_http();
        }
        let Some(page) = page(request.uri.path()) else {
            return text(
                StatusCode::NOT_FOUND,
                &format!("nothing is here: accepted are {DISCOVERY} and {ANNOTATIONS}"),
            );
        };
        if request.method != Method::GET {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "accepted is GET");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            return refused;
        }
        let query = request.uri.query().unwrap_or_default().to_owned();
        let has_token = request.headers.contains_key(AUTHORIZATION);
        match self.page(page, &query, request).await {
            Ok(answer) => answer,
            Err(status) => refusal(&status, has_token),
        }
    }

    async fn page(&self, page: Page, query: &str, request: Parts) -> Result<Response<String>, Status> {
        let request = tonic::Request::from_parts(MetadataMap::from_headers(request.headers), request.extensions, ());
        let who = self.0.operator(&request).await?;
        who.reads()?;
        match page {
            Page::Discovery => self.discovery(who, query).await,
            Page::Annotations => self.annotations(who, query).await,
        }
    }

    async fn discovery(&self, who: Operator, query: &str) -> Result<Response<String>, Status> {
        let wanted = discovery::Wanted::read(query).map_err(|mistakes| wrong(&mistakes))?;
        let look = move |engine: &Engine| {
            discovery::groups(&engine.state, &wanted, |service, environment| who.sees(Some(service), Some(environment)))
        };
        json(&self.0.engine.read(look).await.ok_or_else(stopping)?)
    }

    async fn annotations(&self, who: Operator, query: &str) -> Result<Response<String>, Status> {
        let asked = annotations::Asked::read(query, clock_ms()).map_err(|mistakes| wrong(&mistakes))?;
        json(&annotations::gather(&self.0.engine, &who, asked).await?)
    }
}

impl Operator {
    /// Refuses a token that reads nothing at all. One that reads a part is answered with that part.
    fn reads(&self) -> Result<(), Status> {
        if self.has(Verb::Read) { Ok(()) } else { self.may(Verb::Read, None, None) }
    }
}

fn page(path: &str) -> Option<Page> {
    match path {
        DISCOVERY => Some(Page::Discovery),
        ANNOTATIONS => Some(Page::Annotations),
        _ => None,
    }
}

fn is_grpc(request: &Parts) -> bool {
    request.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The one place that turns a refusal into a status of HTTP.
fn refusal(status: &Status, has_token: bool) -> Response<String> {
    let code = match status.code() {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    if code != StatusCode::UNAUTHORIZED {
        return text(code, status.message());
    }
    let why = if has_token {
        status.message()
    } else {
        "a token is missing: accepted is the field `Authorization: Bearer TOKEN`, with one of `pointsman token create`"
    };
    let mut refused = text(code, why);
    refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    refused
}

fn json(list: &impl Serialize) -> Result<Response<String>, Status> {
    let body = serde_json::to_string(list).map_err(|problem| Status::internal(problem.to_string()))?;
    Ok(response(StatusCode::OK, "application/json", body))
}
