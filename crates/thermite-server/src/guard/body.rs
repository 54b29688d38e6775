//! Bodies: so long at most, there in time, and JSON.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use crate::limits::Limits;
use crate::openai::{ApiError, Fields};
use crate::state::State;

/// The JSON object in a request's body.
#[derive(Debug)]
pub(crate) struct JsonObject(pub(crate) Fields);

impl FromRequest<Arc<State>> for JsonObject {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<State>) -> Result<Self, ApiError> {
        let (head, body) = request.into_parts();
        check_type(&head.headers)?;
        let bytes = read(body, &state.limits).await?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            ApiError::invalid(format!("the body is not UTF-8: byte {} is invalid", error.valid_up_to()))
        })?;
        match serde_json::from_str(text) {
            Ok(serde_json::Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(ApiError::invalid("the body must be a JSON object")),
            Err(error) => Err(ApiError::invalid(format!("the body is not JSON: {error}"))),
        }
    }
}

/// A page of another origin cannot send this type without asking first.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = given.and_then(|value| value.split(';').next()).map(str::trim);
    match essence {
        Some(essence) if essence.eq_ignore_ascii_case("application/json") => Ok(()),
        _ => Err(ApiError::refused(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body must be JSON: send the header Content-Type: application/json",
        )),
    }
}

async fn read(body: Body, limits: &Limits) -> Result<Bytes, ApiError> {
    let most = limits.body_bytes;
    let collected = timeout(limits.body_time, Limited::new(body, most).collect()).await.map_err(|_| {
        let seconds = limits.body_time.as_secs_f64();
        ApiError::refused(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body was not there within {seconds} seconds"),
        )
    })?;
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body has more than the {most} bytes that are allowed"),
        )),
        Err(error) => Err(ApiError::invalid(format!("the body cannot be read: {error}"))),
    }
}
