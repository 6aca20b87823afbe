//! The HTTP side of a service: problems, JSON bodies, health and metrics, API documentation, and the server itself.

pub mod actuator;
pub mod components;
pub mod json;
pub mod middleware;
pub mod openapi;
pub mod opening;
pub mod problem;
pub mod serve;

pub use json::ProblemJson;
pub use opening::serve_while_opening;
pub use problem::{FieldError, Problem};
pub use serve::{BindError, HttpSettings, ServeError, bind, serve};
