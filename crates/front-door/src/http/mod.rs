//! HTTP: connections and what each request must be before its content is looked at.

pub(crate) mod admission;
pub(crate) mod aside;
pub(crate) mod body;
pub(crate) mod connection;
pub(crate) mod files;
pub(crate) mod media;
pub(crate) mod origin;
pub(crate) mod page;
pub(crate) mod problem;
pub(crate) mod serving;
pub(crate) mod turns;
