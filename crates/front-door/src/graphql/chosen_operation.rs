//! Selects the operation of a document that a request means (GraphQL, GetOperation).

use std::sync::Arc;
use std::time::Instant;

use super::diagnostics::MOST_ERRORS;
use super::error::{Code, RequestError};
use super::prepared_operation::Prepared;

/// An operation of a checked document.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    operations: Arc<Vec<Prepared>>,
    at: usize,
    pub(super) begun: Instant,
}

impl Chosen {
    /// Selects the operation with this name, or the only one.
    ///
    /// # Errors
    /// When there is no such operation.
    #[expect(clippy::disallowed_methods, reason = "it measures and decides nothing")]
    pub(super) fn of(
        operations: Arc<Vec<Prepared>>,
        name: Option<&str>,
    ) -> Result<Self, RequestError> {
        let at = choose(&operations, name)?;
        Ok(Self {
            operations,
            at,
            begun: Instant::now(),
        })
    }
}

impl std::ops::Deref for Chosen {
    type Target = Prepared;
    #[expect(
        clippy::indexing_slicing,
        reason = "the index was found in this very list"
    )]
    fn deref(&self) -> &Prepared {
        &self.operations[self.at]
    }
}

/// The index of the operation that is meant (GraphQL, GetOperation).
fn choose(operations: &[Prepared], name: Option<&str>) -> Result<usize, RequestError> {
    match name {
        Some(name) => operations
            .iter()
            .position(|operation| operation.name.as_deref() == Some(name))
            .ok_or_else(|| {
                not_found(
                    operations,
                    "the document has no operation of this `operationName`",
                )
            }),
        None if operations.len() == 1 => Ok(0),
        None if operations.is_empty() => Err(RequestError::document(
            "operation",
            Code::BadUserInput,
            "the document has no operation",
        )),
        None => Err(not_found(
            operations,
            "the document has several operations: `operationName` must say which",
        )),
    }
}

fn not_found(operations: &[Prepared], what: &str) -> RequestError {
    let names: Vec<&str> = operations
        .iter()
        .filter_map(|operation| operation.name.as_deref())
        .take(MOST_ERRORS)
        .collect();
    let known = if names.is_empty() {
        "one without a name".to_owned()
    } else {
        names.join(", ")
    };
    RequestError::document(
        "operation",
        Code::BadUserInput,
        format!("{what}; it has {known}"),
    )
    .with("field", "operationName")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::test_support::documents;

    #[test]
    fn of_several_operations_one_must_be_named() {
        let documents = documents(false);
        let both = "query A{__typename} query B{__typename}";
        assert!(documents.operation(both, None).is_err());
        assert!(documents.operation(both, Some("C")).is_err());
        assert_eq!(
            documents
                .operation(both, Some("B"))
                .unwrap()
                .name
                .as_deref(),
            Some("B")
        );
        let nameless = documents
            .operation("{__typename}", Some("C"))
            .unwrap_err()
            .errors()[0]["message"]
            .to_string();
        assert!(nameless.contains("it has one without a name"), "{nameless}");
    }
}
