//! Files of the Hub over HTTP. The token is shown to the Hub alone: large files lie with others, to whom it sends on.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use ureq::http::header::{AUTHORIZATION, CONTENT_RANGE, ETAG, LOCATION, RANGE};
use ureq::http::{HeaderMap, HeaderName, Response, StatusCode};
use ureq::{Agent, Body};

use super::address::{Origin, followed};
use super::progress::Bar;

/// Times that a transfer is taken up again where it broke off.
const RETRIES: u32 = 5;

/// Before the first of them; twice as long before each further one.
const WAIT: Duration = Duration::from_millis(200);

/// Times that a request is sent on.
const REDIRECTS: usize = 10;

/// Until there is a connection.
const CONNECT: Duration = Duration::from_secs(30);

/// Until the head of an answer is there.
const ANSWER: Duration = Duration::from_secs(60);

const COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");
const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");

/// Why a file does not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    #[error("request error: {0}")]
    Request(#[from] ureq::Error),
    #[error("the answer has no header {0}, or one that makes no sense")]
    Header(HeaderName),
    #[error("the request was sent on more than {REDIRECTS} times")]
    Redirects,
    #[error("the request was sent on to {0:?}, which is no address that can be followed")]
    Location(String),
    #[error("{have} bytes came of {need}")]
    Length { have: u64, need: u64 },
    #[error("the transfer broke off: {0}")]
    Broken(io::Error),
    #[error("what came cannot be written: {0}")]
    Write(io::Error),
}

impl TransferError {
    /// Whether it may be otherwise the next time.
    fn passes(&self) -> bool {
        match self {
            Self::Request(ureq::Error::StatusCode(status)) => matches!(status, 408 | 429 | 500..),
            Self::Request(_) | Self::Length { .. } | Self::Broken(_) => true,
            Self::Header(_) | Self::Redirects | Self::Location(_) | Self::Write(_) => false,
        }
    }
}

/// What the Hub says of a file.
pub(super) struct Metadata {
    pub(super) commit: String,
    pub(super) etag: String,
    pub(super) size: u64,
}

/// Asks the Hub, and whom it sends on to.
pub(super) struct Client {
    agent: Agent,
    hub: Origin,
    token: Option<String>,
}

/// An answer, and the headers with which the Hub itself answered.
struct Answer {
    of_hub: HeaderMap,
    response: Response<Body>,
}

impl Client {
    pub(super) fn new(hub: Origin, token: Option<String>) -> Self {
        let config = Agent::config_builder()
            // redirects are followed by hand: the token must not go with them
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .user_agent(concat!("thermite/", env!("CARGO_PKG_VERSION")));
        Self { agent: config.build().into(), hub, token }
    }

    pub(super) fn text(&self, url: &str) -> Result<String, TransferError> {
        Ok(self.get(url, None)?.response.body_mut().read_to_string()?)
    }

    pub(super) fn metadata(&self, url: &str) -> Result<Metadata, TransferError> {
        let Answer { of_hub, response } = self.get(url, Some("bytes=0-0"))?;
        let etag = header(&of_hub, LINKED_ETAG).or_else(|_| header(&of_hub, ETAG))?;
        Ok(Metadata {
            commit: header(&of_hub, COMMIT)?.to_owned(),
            etag: etag.trim_start_matches("W/").trim_matches('"').to_owned(),
            size: part(response.headers())?.1,
        })
    }

    /// Fetches what is not yet there of a file of `size` bytes.
    pub(super) fn fetch(&self, url: &str, to: &Path, size: u64, bar: &Bar) -> Result<(), TransferError> {
        let mut tried = 0;
        loop {
            match self.append(url, to, size, bar) {
                Err(error) if error.passes() && tried < RETRIES => {
                    thread::sleep(WAIT * (1 << tried));
                    tried += 1;
                }
                done => return done,
            }
        }
    }

    fn append(&self, url: &str, to: &Path, size: u64, bar: &Bar) -> Result<(), TransferError> {
        let file = OpenOptions::new().append(true).create(true).open(to);
        let mut file = file.map_err(TransferError::Write)?;
        let mut have = file.metadata().map_err(TransferError::Write)?.len();
        if have > size {
            have = emptied(&file)?;
        }
        if have < size {
            let response = self.get(url, Some(&format!("bytes={have}-")))?.response;
            if response.status() != StatusCode::PARTIAL_CONTENT {
                // all of it, whatever was asked for
                have = emptied(&file)?;
            } else if part(response.headers())? != (have, size) {
                return Err(TransferError::Header(CONTENT_RANGE));
            }
            bar.begin_at(have);
            let mut body = response.into_body().into_reader();
            let mut buffer = vec![0; 1 << 16];
            while have <= size {
                let read = body.read(&mut buffer).map_err(TransferError::Broken)?;
                if read == 0 {
                    break;
                }
                file.write_all(&buffer[..read]).map_err(TransferError::Write)?;
                bar.advance(read as u64);
                have += read as u64;
            }
        }
        if have == size { Ok(()) } else { Err(TransferError::Length { have, need: size }) }
    }

    /// Asks for a URL, or for a range of what it has.
    fn get(&self, url: &str, range: Option<&str>) -> Result<Answer, TransferError> {
        let mut url = url.to_owned();
        let mut of_hub = HeaderMap::new();
        for _ in 0..=REDIRECTS {
            let is_hub = Origin::of(&url).as_ref() == Some(&self.hub);
            let mut request = self.agent.get(&url);
            if let Some(range) = range {
                request = request.header(RANGE, range);
            }
            if let Some(token) = self.token.as_ref().filter(|_| is_hub) {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            let response = request.call()?;
            if is_hub && response.headers().contains_key(COMMIT) {
                of_hub = response.headers().clone();
            }
            if !response.status().is_redirection() {
                return Ok(Answer { of_hub, response });
            }
            let location = header(response.headers(), LOCATION)?;
            url = followed(&url, location).ok_or_else(|| TransferError::Location(location.to_owned()))?;
        }
        Err(TransferError::Redirects)
    }
}

fn emptied(file: &File) -> Result<u64, TransferError> {
    file.set_len(0).map_err(TransferError::Write)?;
    Ok(0)
}

fn header(headers: &HeaderMap, name: HeaderName) -> Result<&str, TransferError> {
    let value = headers.get(&name).and_then(|value| value.to_str().ok());
    value.ok_or(TransferError::Header(name))
}

/// Where the bytes of an answer begin in the file, and how many it has: `Content-Range: bytes 5-9/10`.
fn part(headers: &HeaderMap) -> Result<(u64, u64), TransferError> {
    let read = |value: &str| {
        let (range, size) = value.strip_prefix("bytes ")?.split_once('/')?;
        Some((range.split_once('-')?.0.parse().ok()?, size.parse().ok()?))
    };
    read(header(headers, CONTENT_RANGE)?).ok_or(TransferError::Header(CONTENT_RANGE))
}
