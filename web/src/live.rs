//! The live page: a change, seen on its way and arriving in two windows. What it runs on is the client library of `web/live`.

use crate::File;

/// The page for `GET /live` of the gateway.
pub const LIVE_PAGE: &str = include_str!("../pages/live/live.html");

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// What it loads beside the files of every page.
pub const LIVE_FILES: [File; 7] = [
    File::new(
        "/ui/live/live.css",
        "text/css; charset=utf-8",
        include_str!("../pages/live/live.css"),
    ),
    File::new(
        "/ui/live/live.js",
        SCRIPT,
        include_str!("../pages/live/live.js"),
    ),
    File::new(
        "/ui/live/ledger.js",
        SCRIPT,
        include_str!("../pages/live/ledger.js"),
    ),
    File::new(
        "/ui/live/operations.js",
        SCRIPT,
        include_str!("../pages/live/operations.js"),
    ),
    File::new(
        "/ui/live/pane.js",
        SCRIPT,
        include_str!("../pages/live/pane.js"),
    ),
    File::new(
        "/ui/live/way.js",
        SCRIPT,
        include_str!("../pages/live/way.js"),
    ),
    File::new(
        "/ui/live/tandem-live.js",
        SCRIPT,
        include_str!("../live/tandem-live.js"),
    ),
];
