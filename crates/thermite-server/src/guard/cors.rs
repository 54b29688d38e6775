//! Web pages of other origins: none may ask, but for those that were allowed.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Answers browsers that ask for `allowed` origins (`*` for all), and marks what such pages may read.
pub(crate) async fn cors(
    allowed: std::sync::Arc<Vec<HeaderValue>>,
    request: Request,
    next: Next,
) -> Response {
    let origin = request.headers().get(header::ORIGIN);
    let origin = origin.filter(|origin| allowed.iter().any(|allowed| allowed == *origin || allowed == "*"));
    let Some(origin) = origin.cloned() else { return next.run(request).await };
    let asks = request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match request.method() {
        &Method::OPTIONS if asks => StatusCode::NO_CONTENT.into_response(),
        _ => next.run(request).await,
    };
    mark(response.headers_mut(), origin);
    response
}

fn mark(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    let fixed: [(HeaderName, &'static str); 4] = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type"),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, "x-request-id, retry-after"),
        (header::ACCESS_CONTROL_MAX_AGE, "3600"),
    ];
    headers.extend(fixed.map(|(name, value)| (name, HeaderValue::from_static(value))));
}
