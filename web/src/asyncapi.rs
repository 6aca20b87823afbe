//! What is on the topics, as a page: the AsyncAPI document, and a script that draws it.

use crate::File;

/// Where the page is.
pub const ASYNCAPI_PATH: &str = "/asyncapi";

/// The page; it draws `asyncapi.json`.
pub const ASYNCAPI_PAGE: &str = include_str!("../pages/asyncapi.html");

/// The document, as committed, and what the page needs beside [`crate::PAGE_FILES`].
pub const ASYNCAPI_FILES: [File; 2] = [
    File::new(
        "/asyncapi.json",
        "application/json",
        include_str!("../../schema/asyncapi.json"),
    ),
    File::new(
        "/ui/asyncapi.js",
        "text/javascript; charset=utf-8",
        include_str!("../pages/asyncapi.js"),
    ),
];
