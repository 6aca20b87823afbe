//! The HTTP side of a service: problems, JSON bodies, health and metrics, API documentation, and the server.

pub mod access;
pub mod actuator;
pub mod consistency;
pub(crate) mod graphql_refusal;
mod http_settings;
pub mod json;
pub mod legacy;
pub mod middleware;
pub mod open_metrics;
pub mod openapi;
pub mod pages;
pub mod problem;
pub mod serve;
pub mod startup;
mod unread;

pub use http_settings::HttpSettings;
pub use json::ProblemJson;
pub use problem::{FieldError, Problem};
pub use serve::{BindError, Judge, ServeError, bind, serve};
pub use startup::serve_during_startup;
