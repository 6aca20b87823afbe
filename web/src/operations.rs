//! The operator's page: how the services are, and what an operator puts right. It asks what the commands ask.

use crate::File;

/// Where the page is, and below it what it asks.
pub const OPERATIONS_PATH: &str = "/operations";

/// The page.
pub const OPERATIONS_PAGE: &str = include_str!("../pages/operations/operations.html");

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// What it loads beside the files of every page.
pub const OPERATIONS_FILES: [File; 9] = [
    File::new(
        "/ui/operations/operations.css",
        "text/css; charset=utf-8",
        include_str!("../pages/operations/operations.css"),
    ),
    File::new(
        "/ui/operations/operations.js",
        SCRIPT,
        include_str!("../pages/operations/operations.js"),
    ),
    File::new(
        "/ui/operations/api.js",
        SCRIPT,
        include_str!("../pages/operations/api.js"),
    ),
    File::new(
        "/ui/operations/elements.js",
        SCRIPT,
        include_str!("../pages/operations/elements.js"),
    ),
    File::new(
        "/ui/operations/health.js",
        SCRIPT,
        include_str!("../pages/operations/health.js"),
    ),
    File::new(
        "/ui/operations/log.js",
        SCRIPT,
        include_str!("../pages/operations/log.js"),
    ),
    File::new(
        "/ui/operations/letters.js",
        SCRIPT,
        include_str!("../pages/operations/letters.js"),
    ),
    File::new(
        "/ui/operations/rebuild.js",
        SCRIPT,
        include_str!("../pages/operations/rebuild.js"),
    ),
    File::new(
        "/ui/operations/audit.js",
        SCRIPT,
        include_str!("../pages/operations/audit.js"),
    ),
];
