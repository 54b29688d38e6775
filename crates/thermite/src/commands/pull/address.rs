//! Addresses, read by the parser that the requests are sent with: no two readings of one address.

use std::fmt::Write as _;

use ureq::http::Uri;

/// Scheme, host and port: what a secret is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    is_https: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// That of a URL; none if it is not one of HTTP.
    pub(super) fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let is_https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        Some(Self { is_https, host, port: uri.port_u16().unwrap_or(if is_https { 443 } else { 80 }) })
    }
}

/// Where a `Location` in the answer of `url` leads; none if that is no URL of HTTP, or leads from HTTPS to a connection
/// that others can read.
pub(super) fn followed(url: &str, location: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let next = match location {
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => {
            format!("{scheme}://{}{location}", rest.split(['/', '?', '#']).next()?)
        }
        _ => location.to_owned(),
    };
    let safe = |from: &Origin, to: &Origin| to.is_https || !from.is_https;
    Some(next).filter(|next| Origin::of(url).zip(Origin::of(next)).is_some_and(|(from, to)| safe(&from, &to)))
}

/// A segment of a path: what is not unreserved (RFC 3986, 2.3) as %XX.
pub(super) fn encoded(segment: &str) -> String {
    segment.bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(byte.into()),
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let hub = Origin::of("https://huggingface.co").unwrap();
        for same in
            ["https://huggingface.co/a/b?c=d", "https://HuggingFace.co:443/", "https://a:b@huggingface.co/x"]
        {
            assert_eq!(Origin::of(same).as_ref(), Some(&hub), "{same}");
        }
        for other in [
            "http://huggingface.co/",
            "https://huggingface.co:8443/",
            "https://huggingface.co.example.com/",
            "https://cdn.huggingface.co/",
            "https://huggingface.co@example.com/",
            "https://example.com/https://huggingface.co/",
            "https://example.com#@huggingface.co/",
            "https://example.com\\@huggingface.co/",
        ] {
            assert_ne!(Origin::of(other).as_ref(), Some(&hub), "{other}");
        }
        for none in ["", "huggingface.co", "/a", "ftp://huggingface.co", "https://", "https:///a", "a b"] {
            assert_eq!(Origin::of(none), None, "{none}");
        }
    }

    #[test]
    fn redirects_are_followed_but_not_out_of_https() {
        let next = |location| followed("https://hub.example:8443/a/b?c", location);
        assert_eq!(next("/c?d").as_deref(), Some("https://hub.example:8443/c?d"));
        assert_eq!(next("//cdn.example/c").as_deref(), Some("https://cdn.example/c"));
        assert_eq!(next("https://cdn.example/c").as_deref(), Some("https://cdn.example/c"));
        for wrong in ["http://hub.example:8443/c", "file:///etc/passwd", "c", "", "https://"] {
            assert_eq!(next(wrong), None, "{wrong}");
        }
        assert_eq!(followed("http://a/b", "https://c/d").as_deref(), Some("https://c/d"));
        assert_eq!(followed("http://a?b", "/c").as_deref(), Some("http://a/c"));
    }

    #[test]
    fn segments_are_encoded() {
        assert_eq!(encoded("model-1_2.gguf"), "model-1_2.gguf");
        assert_eq!(encoded("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(encoded("ü ?#%"), "%C3%BC%20%3F%23%25");
    }
}
