//! Errors in the shape that OpenAI's clients read.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// What was wrong with a request, or with the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) body: ErrorBody,
    /// Seconds after which another try is worth it.
    retry_after: Option<u32>,
}

/// The answer to a request that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    pub(crate) error: ErrorDetail,
}

/// What was wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// In words, with the numbers.
    pub(crate) message: String,
    /// `invalid_request_error`, `rate_limit_error` or `server_error`.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub(crate) kind: &'static str,
    /// The field of the request that it is about.
    pub(crate) param: Option<String>,
    /// A word for programs, such as `context_length_exceeded`.
    #[schema(value_type = Option<String>)]
    pub(crate) code: Option<&'static str>,
}

const INVALID_REQUEST: &str = "invalid_request_error";
const RATE_LIMIT: &str = "rate_limit_error";
const SERVER: &str = "server_error";

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let error = ErrorDetail { message: message.into(), kind, param: None, code: None };
        Self { status, body: ErrorBody { error }, retry_after: None }
    }

    /// 400: the request asks for something that cannot be.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::refused(StatusCode::BAD_REQUEST, message)
    }

    /// Another 4xx: the request is not served.
    pub(crate) fn refused(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, INVALID_REQUEST, message)
    }

    /// 429: there is no place.
    pub(crate) fn busy(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, RATE_LIMIT, message);
        Self { retry_after: Some(1), ..error }.code("queue_full")
    }

    /// 503: not now.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, message);
        Self { retry_after: Some(1), ..error }
    }

    /// 500: the server failed.
    pub(crate) fn server(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, message)
    }

    /// About the field `param`.
    pub(crate) fn param(mut self, param: impl Into<String>) -> Self {
        self.body.error.param = Some(param.into());
        self
    }

    /// With a word for programs.
    pub(crate) fn code(mut self, code: &'static str) -> Self {
        self.body.error.code = Some(code);
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<&thermite_engine::Error> for ApiError {
    /// What the engine says of a request: whose fault it is, and which field's.
    fn from(error: &thermite_engine::Error) -> Self {
        use thermite_engine::chat::TemplateError;
        use thermite_engine::{Error, GrammarError, SamplingError, TokenizerError};
        let message = error.to_string();
        match error {
            Error::PromptTooLong { .. } => Self::invalid(message).code("context_length_exceeded"),
            Error::Sampling(SamplingError::OutOfRange { parameter, .. }) => {
                Self::invalid(message).param(*parameter)
            }
            Error::Template(TemplateError::Thread(_)) => Self::server(message),
            Error::Template(_) => Self::invalid(message).param("messages"),
            Error::EmptyPrompt | Error::Tokenizer(TokenizerError::Encode { .. }) => Self::invalid(message),
            Error::TokenId { .. } => Self::invalid(message),
            Error::UnknownToken { what: "logit_bias", .. } => Self::invalid(message).param("logit_bias"),
            Error::UnknownToken { .. } => Self::invalid(message).param("prompt"),
            Error::Grammar(GrammarError::Thread { .. }) => Self::server(message),
            Error::Grammar(_) => Self::invalid(message).param("response_format"),
            Error::Stop(_) => Self::invalid(message).param("stop"),
            Error::QueueFull { .. } => Self::busy(message),
            _ => Self::server(message),
        }
    }
}

impl From<thermite_engine::Error> for ApiError {
    fn from(error: thermite_engine::Error) -> Self {
        Self::from(&error)
    }
}
