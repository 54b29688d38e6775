//! The page to talk to a model on: embedded files, which hold no secrets and need no key.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use crate::state::State;

struct File {
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// A table of paths, files of `page/` and their types.
macro_rules! files {
    ($($path:literal $name:literal $content_type:expr,)*) => {
        [$(File { path: $path, content_type: $content_type, bytes: include_bytes!(concat!("../../page/", $name)) }),*]
    };
}

static FILES: &[File] = &files! {
    "/" "index.html" HTML,
    "/style.css" "style.css" CSS,
    "/icon.svg" "icon.svg" SVG,
    "/theme.js" "theme.js" JS,
    "/app.js" "app.js" JS,
    "/api.js" "api.js" JS,
    "/dom.js" "dom.js" JS,
    "/markdown.js" "markdown.js" JS,
    "/run.js" "run.js" JS,
    "/settings.js" "settings.js" JS,
    "/sidebar.js" "sidebar.js" JS,
    "/store.js" "store.js" JS,
    "/view.js" "view.js" JS,
};

/// Scripts and styles are this server's own files, and so is everything that the page may ask.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-cache"),
];

static TAGS: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| FILES.iter().map(File::tag).collect());

impl File {
    /// What changes with the file's content.
    fn tag(&self) -> HeaderValue {
        let digest = Sha256::digest(self.bytes);
        let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        HeaderValue::try_from(format!("\"{hex}\"")).unwrap_or(HeaderValue::from_static("\"\""))
    }

    fn answer(&self, tag: &HeaderValue, asked: &HeaderMap) -> Response {
        let known = asked.get_all(header::IF_NONE_MATCH).iter().any(|known| known == tag);
        let mut response = match known {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => ([(header::CONTENT_TYPE, self.content_type)], self.bytes).into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, tag.clone());
        headers.extend(HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
        response
    }
}

/// The routes of the page.
pub(super) fn router() -> Router<Arc<State>> {
    FILES.iter().enumerate().fold(Router::new(), |router, (i, file)| {
        router.route(file.path, get(move |asked: HeaderMap| async move { file.answer(&TAGS[i], &asked) }))
    })
}
