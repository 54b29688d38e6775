//! The names under which the server may be called. A web page can make a name of its own mean this machine (DNS
//! rebinding) and then read what a server here answers; it cannot make the browser send another `Host` than that name.

use std::net::IpAddr;

use axum::extract::{Request, State as Extract};
use axum::http::uri::Authority;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::openai::ApiError;
use crate::state::Shared;

/// The names under which the server may be called.
#[derive(Debug, Clone)]
pub(crate) enum Hosts {
    /// Any: the server is there for others than this machine.
    Any,
    /// Those of this machine alone, and these.
    Local(Vec<String>),
}

impl Hosts {
    /// Those for a server that listens on `address`.
    pub(crate) fn of(address: IpAddr, allowed: Vec<String>) -> Self {
        if address.is_loopback() { Self::Local(allowed) } else { Self::Any }
    }

    fn allow(&self, host: &str) -> bool {
        let Self::Local(allowed) = self else { return true };
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        address.is_ok_and(|address| address.is_loopback())
            || name == "localhost"
            || name.ends_with(".localhost")
            || allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(&name))
    }
}

/// Lets requests through that call the server by one of its names.
pub(crate) async fn check_host(Extract(state): Shared, request: Request, next: Next) -> Response {
    let mut headers = request.headers().get_all(header::HOST).iter();
    // of two, another program on the way may have read the other
    let header = headers.next().filter(|_| headers.next().is_none()).and_then(|value| value.to_str().ok());
    let host = header.map(|header| request.uri().authority().map_or(header, Authority::as_str));
    let name = host.filter(|host| !host.contains('@')).and_then(|host| host.parse::<Authority>().ok());
    if name.as_ref().is_some_and(|name| state.hosts.allow(name.host())) {
        return next.run(request).await;
    }
    let message =
        "the header Host is missing, is there twice or names another machine; --allow-host adds a name";
    ApiError::refused(StatusCode::FORBIDDEN, message).code("host_not_allowed").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine() {
        let hosts = Hosts::of("127.0.0.1".parse().unwrap(), vec!["llm.example".to_owned()]);
        for host in
            ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.9.9.9", "[::1]", "LLM.example"]
        {
            assert!(hosts.allow(host), "{host}");
        }
        for host in ["", "example.com", "localhost.example.com", "128.0.0.1", "[::2]", "xlocalhost"] {
            assert!(!hosts.allow(host), "{host}");
        }
        assert!(Hosts::of("0.0.0.0".parse().unwrap(), vec![]).allow("example.com"));
    }
}
