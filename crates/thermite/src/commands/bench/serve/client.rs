//! A client of the API: streamed completions, with the moment of each piece.

use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::json;

use crate::error::Error;

/// A text that takes longer has failed.
const LONGEST: Duration = Duration::from_secs(600);

/// Why a request has failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("no connection: {0}")]
    Connection(String),
    #[error("status {status}: {message}")]
    Status { status: u16, message: String },
    #[error("the stream broke off: {0}")]
    Broken(String),
    #[error("the stream tells of an error: {0}")]
    Told(String),
    #[error("the stream has no end")]
    NoEnd,
    #[error("not done after {} s", LONGEST.as_secs())]
    TimeOut,
    #[error("not sent: {0} others are under way")]
    NotSent(usize),
}

/// Tokens as the server counts them.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct Usage {
    pub(super) prompt_tokens: usize,
    #[serde(default)]
    pub(super) completion_tokens: usize,
}

/// What became of one request.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) sent: Instant,
    /// When each piece of the text came.
    pub(super) pieces: Vec<Instant>,
    pub(super) outcome: Result<Usage, RequestError>,
}

impl Sample {
    /// Tokens; none of what has failed.
    pub(super) fn usage(&self) -> Usage {
        *self.outcome.as_ref().unwrap_or(&Usage { prompt_tokens: 0, completion_tokens: 0 })
    }
}

/// A server, and the model on it.
#[derive(Debug, Clone)]
pub(super) struct Client {
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    url: String,
    authorization: Option<HeaderValue>,
    model: String,
    ignore_eos: bool,
}

#[derive(Deserialize)]
struct Models {
    data: Vec<ModelCard>,
}

#[derive(Deserialize)]
struct ModelCard {
    id: String,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<ErrorBody>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    text: String,
}

#[derive(Deserialize)]
struct Failure {
    error: ErrorBody,
}

#[derive(Deserialize)]
struct ErrorBody {
    message: String,
}

impl Client {
    /// A client for the first model of the server at `url`.
    pub(super) async fn connect(url: &str, key: Option<&str>) -> Result<Self, Error> {
        let failed = |reason: String| Error::Measured { url: url.to_owned(), reason };
        if !url.starts_with("http://") {
            return Err(failed("only http:// is spoken here".to_owned()));
        }
        let authorization = key.map(|key| HeaderValue::try_from(format!("Bearer {key}")));
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let mut client = Self {
            http: legacy::Client::builder(TokioExecutor::new()).build(connector),
            url: url.to_owned(),
            authorization: authorization.transpose().map_err(|e| failed(format!("the key: {e}")))?,
            model: String::new(),
            ignore_eos: true,
        };
        let models = client.request(Method::GET, "/v1/models", Bytes::new());
        let models = client.send(models).await.map_err(|e| failed(e.to_string()))?;
        let body = models.collect().await.map_err(|e| failed(e.to_string()))?.to_bytes();
        let models: Models =
            serde_json::from_slice(&body).map_err(|e| failed(format!("its list of models: {e}")))?;
        client.model = models.data.into_iter().next().ok_or_else(|| failed("no model".to_owned()))?.id;
        // a server that does not know the field may refuse it
        if let Err(RequestError::Status { status: 400 | 422, .. }) = client.complete("a", 1).await.outcome {
            client.ignore_eos = false;
        }
        client.complete("a", 1).await.outcome.map_err(|e| failed(e.to_string()))?;
        Ok(client)
    }

    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// Whether texts go on past the model's own end of text.
    pub(super) const fn ignores_eos(&self) -> bool {
        self.ignore_eos
    }

    /// The error of a measurement that cannot go on.
    pub(super) fn failed(&self, error: &RequestError) -> Error {
        Error::Measured { url: self.url.clone(), reason: error.to_string() }
    }

    /// Has `prompt` completed by `max_tokens` tokens.
    pub(super) async fn complete(&self, prompt: &str, max_tokens: usize) -> Sample {
        let mut body = json!({
            "model": self.model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": true,
            "stream_options": { "include_usage": true },
        });
        if self.ignore_eos {
            body["ignore_eos"] = true.into();
        }
        let request = self.request(Method::POST, "/v1/completions", body.to_string().into());
        let (sent, mut pieces) = (Instant::now(), Vec::with_capacity(max_tokens));
        let stream = async { read(self.send(request).await?, &mut pieces).await };
        let outcome = tokio::time::timeout(LONGEST, stream).await.unwrap_or(Err(RequestError::TimeOut));
        Sample { sent, pieces, outcome }
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        // an address that is none is refused when it is sent
        *request.uri_mut() = format!("{}{path}", self.url).parse().unwrap_or_default();
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, key.clone());
        }
        request
    }

    async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<hyper::body::Incoming>, RequestError> {
        let response =
            self.http.request(request).await.map_err(|e| RequestError::Connection(with_sources(&e)))?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let told = serde_json::from_slice(&body).map(|Failure { error }| error.message);
        let message = told.unwrap_or_else(|_| String::from_utf8_lossy(&body).chars().take(200).collect());
        Err(RequestError::Status { status, message })
    }
}

/// Reads the events of a text to their end.
async fn read(
    response: Response<hyper::body::Incoming>,
    pieces: &mut Vec<Instant>,
) -> Result<Usage, RequestError> {
    let broken = |e: &dyn std::error::Error| RequestError::Broken(with_sources(e));
    let mut body = response.into_body();
    let (mut buffer, mut usage, mut ended) = (Vec::new(), Usage::default(), false);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| broken(&e))?;
        let Some(data) = frame.data_ref() else { continue };
        let now = Instant::now();
        buffer.extend_from_slice(data);
        let whole = buffer.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        for line in buffer[..whole].split(|&byte| byte == b'\n') {
            let Some(data) = line.strip_prefix(b"data:") else { continue };
            let data = data.trim_ascii();
            if data == b"[DONE]" {
                ended = true;
                continue;
            }
            let chunk: Chunk = serde_json::from_slice(data).map_err(|e| broken(&e))?;
            if let Some(error) = chunk.error {
                return Err(RequestError::Told(error.message));
            }
            if chunk.choices.iter().any(|choice| !choice.text.is_empty()) {
                pieces.push(now);
            }
            usage = chunk.usage.unwrap_or(usage);
        }
        buffer.drain(..whole);
    }
    if ended { Ok(usage) } else { Err(RequestError::NoEnd) }
}

/// What an error says, and what it came from.
fn with_sources(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
