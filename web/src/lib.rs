//! What a person sees in a browser: the start page, the live page, the operator's page, GraphiQL, and the page that explains an error. All of it is held in the binary and
//! loads nothing from elsewhere.
//!
//! The gateway and the services have servers of different frameworks: here is what they serve, there how.

mod accept;
mod asyncapi;
mod explanation;
mod graphiql;
mod live;
mod operations;

use std::{collections::BTreeMap, sync::LazyLock};

pub use accept::prefers_html;
pub use asyncapi::{ASYNCAPI_FILES, ASYNCAPI_PAGE, ASYNCAPI_PATH};
pub use explanation::{Explanation, GATEWAY_LINKS, Link, SERVICE_LINKS};
pub use graphiql::{GRAPHIQL_FILES, GRAPHIQL_POLICY, graphiql};
pub use live::{LIVE_FILES, LIVE_PAGE};
pub use operations::{OPERATIONS_FILES, OPERATIONS_PAGE, OPERATIONS_PATH};

/// The media type of every page.
pub const HTML: &str = "text/html; charset=utf-8";

/// What a page other than GraphiQL may load: files of its own origin. No script or style stands in the page itself.
pub const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                               base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The gateway's start page; it asks `ui/status.json` for the state of the system.
pub const START_PAGE: &str = include_str!("../pages/start.html");

/// What every page but GraphiQL needs.
pub const PAGE_FILES: [File; 2] = [
    File::new(
        "/ui/page.css",
        "text/css; charset=utf-8",
        include_str!("../pages/page.css"),
    ),
    File::new(
        "/ui/icon.svg",
        "image/svg+xml",
        include_str!("../pages/icon.svg"),
    ),
];

/// What the start page needs beside [`PAGE_FILES`].
pub const START_FILES: [File; 1] = [File::new(
    "/ui/start.js",
    "text/javascript; charset=utf-8",
    include_str!("../pages/start.js"),
)];

/// Whose graph it is: a page differs a little from one to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Graph {
    /// The whole.
    Gateway,
    /// The subgraph of accounts.
    Accounts,
    /// The subgraph of orders.
    Orders,
}

impl Graph {
    /// Its name in pages and paths.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Accounts => "accounts",
            Self::Orders => "orders",
        }
    }
}

/// A file that a page loads.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// Where it is served, from the root.
    pub path: &'static str,
    /// Its media type.
    pub content_type: &'static str,
    /// Its text.
    pub content: &'static str,
}

impl File {
    const fn new(path: &'static str, content_type: &'static str, content: &'static str) -> Self {
        Self {
            path,
            content_type,
            content,
        }
    }

    /// Its entity tag (RFC 9110, 8.8.3), made from its content.
    #[must_use]
    pub fn tag(&self) -> &'static str {
        TAGS.get(self.path).map_or("\"\"", String::as_str)
    }
}

static TAGS: LazyLock<BTreeMap<&'static str, String>> = LazyLock::new(|| {
    GRAPHIQL_FILES
        .iter()
        .chain(&PAGE_FILES)
        .chain(&START_FILES)
        .chain(&LIVE_FILES)
        .chain(&OPERATIONS_FILES)
        .chain(&ASYNCAPI_FILES)
        .map(|file| (file.path, format!("\"{:016x}\"", digest(file.content))))
        .collect()
});

/// FNV-1a, 64 bit (draft-eastlake-fnv): it tells one version of a file from another, and keeps no secret.
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_page_loads_anything_from_elsewhere_or_has_a_script_or_style_in_itself() {
        let explanation = Explanation::of_status(404, "Nothing is here", "x", &SERVICE_LINKS);
        for page in [
            START_PAGE.to_owned(),
            LIVE_PAGE.to_owned(),
            OPERATIONS_PAGE.to_owned(),
            ASYNCAPI_PAGE.to_owned(),
            graphiql(Graph::Orders),
            explanation.page(),
        ] {
            for text in page.split(['"', '\'']).filter(|text| text.contains("//")) {
                assert!(text.contains("localhost"), "{text}");
            }
            assert!(!page.contains("<style") && !page.contains("style="));
            assert!(!page.contains(" onclick") && !page.contains("javascript:"));
            for script in page.split("<script").skip(1) {
                let (attributes, rest) = script.split_once('>').unwrap_or_default();
                assert!(attributes.contains("src=") && rest.starts_with("</script>"));
            }
        }
    }

    #[test]
    fn every_file_has_a_tag_of_its_own() {
        let mut tags: Vec<&str> = GRAPHIQL_FILES
            .iter()
            .chain(&PAGE_FILES)
            .chain(&START_FILES)
            .chain(&LIVE_FILES)
            .chain(&OPERATIONS_FILES)
            .chain(&ASYNCAPI_FILES)
            .map(File::tag)
            .collect();
        let all = tags.len();
        tags.sort_unstable();
        tags.dedup();
        assert_eq!(tags.len(), all);
        assert!(tags.iter().all(|tag| tag.len() == 18));
    }

    #[test]
    fn the_start_page_is_small() {
        let files: usize = PAGE_FILES
            .iter()
            .chain(&START_FILES)
            .map(|file| file.content.len())
            .sum();
        assert!(START_PAGE.len() + files < 40_000);
    }
}
