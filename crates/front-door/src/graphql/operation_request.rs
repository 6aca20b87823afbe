//! Builds the requests that forward an operation: its rewritten document, its name and its variables.

use std::sync::Arc;

use bytes::Bytes;

use super::chosen_operation::Chosen;
use super::variables::Members;

/// An operation that is ready to be forwarded.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    pub(super) operation: Chosen,
    pub(super) body: Bytes,
    /// The steps after the first, if the operation has several.
    pub(super) further: Vec<Bytes>,
    /// The key of each step's field in the answer.
    pub(super) keys: Vec<Arc<str>>,
}

impl Ready {
    pub(super) fn new(operation: Chosen, body: Bytes) -> Self {
        Self {
            operation,
            body,
            further: Vec::new(),
            keys: Vec::new(),
        }
    }
}

/// Builds one request for each field of a mutation.
pub(super) fn in_steps(
    operation: &Chosen,
    variables: &Members<'_>,
    sent_variables: Option<&str>,
) -> Ready {
    let mut bodies = operation.steps.iter().map(|(_, step)| {
        let absent = step.without_absent(|name| variables.get(name).is_some());
        let document = absent.or_else(|| step.rewritten.clone());
        written(
            document.as_deref().unwrap_or_default(),
            step.sent_name.as_deref(),
            sent_variables,
        )
    });
    let body = bodies.next().unwrap_or_default();
    Ready {
        operation: operation.clone(),
        body,
        further: bodies.collect(),
        keys: operation
            .steps
            .iter()
            .map(|(key, _)| Arc::clone(key))
            .collect(),
    }
}

pub(super) fn written(
    document: &str,
    operation_name: Option<&str>,
    variables: Option<&str>,
) -> Bytes {
    let mut body = String::with_capacity(document.len() + variables.map_or(0, str::len) + 64);
    body.push_str("{\"query\":");
    body.push_str(&serde_json::Value::from(document).to_string());
    if let Some(name) = operation_name {
        body.push_str(",\"operationName\":");
        body.push_str(&serde_json::Value::from(name).to_string());
    }
    if let Some(variables) = variables {
        body.push_str(",\"variables\":");
        body.push_str(variables);
    }
    body.push('}');
    body.into()
}
