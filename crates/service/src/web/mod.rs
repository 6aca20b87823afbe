//! The HTTP side of a service: problems, JSON bodies, health and metrics, API documentation, and the server itself.

pub mod access;
pub mod actuator;
pub mod consistency;
pub(crate) mod graphql_refusal;
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

pub use json::ProblemJson;
pub use problem::{FieldError, Problem};
pub use serve::{BindError, HttpSettings, Judge, ServeError, bind, serve};
pub use startup::serve_during_startup;
