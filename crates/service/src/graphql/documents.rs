//! A cache of parsed documents. Clients, above all the gateway, send the same few documents again and again, and
//! parsing and validating a document takes longer than copying the parsed one.

use std::{
    fmt,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use async_graphql::{
    Request, ValidationResult, Value,
    parser::types::{DocumentOperations, ExecutableDocument},
};
use lru::LruCache;

use super::member_order::MemberOrder;

/// How many documents the cache holds. The least recently used one is evicted.
const KEPT: NonZeroUsize = NonZeroUsize::new(256).unwrap();
/// Longest document that is cached, in bytes.
const LONGEST: usize = 4_096;

/// The parsed documents that were used last. Clones share one cache.
#[derive(Clone)]
pub(super) struct ParsedDocuments(Arc<Mutex<Documents>>);

type Documents = LruCache<String, KeptDocument>;

/// A cached document, with what was found out about it. It is put into the data of each request for it.
#[derive(Clone)]
pub(super) struct KeptDocument(Arc<Kept>);

struct Kept {
    document: ExecutableDocument,
    /// The result of the first successful validation.
    validated: OnceLock<ValidationResult>,
    /// The order of the members of answers.
    order: OnceLock<MemberOrder>,
}

impl KeptDocument {
    pub(super) fn new(document: ExecutableDocument) -> Self {
        Self(Arc::new(Kept {
            document,
            validated: OnceLock::new(),
            order: OnceLock::new(),
        }))
    }

    pub(super) fn document(&self) -> &ExecutableDocument {
        &self.0.document
    }

    /// Whether all requests for the document are for the same operation. Then what was found out for one request
    /// holds for all, except for the values of its variables.
    fn has_one_operation(&self) -> bool {
        match &self.0.document.operations {
            DocumentOperations::Single(_) => true,
            DocumentOperations::Multiple(operations) => operations.len() == 1,
        }
    }

    /// The result of an earlier validation.
    pub(super) fn validated(&self) -> Option<ValidationResult> {
        self.0.validated.get().copied()
    }

    /// Notes that the document was found to be valid.
    pub(super) fn is_valid(&self, result: ValidationResult) {
        if self.has_one_operation() {
            self.0.validated.get_or_init(|| result);
        }
    }

    /// Puts the data of the operation of this name in the order of the document. The order is found once if there is
    /// no other operation.
    pub(super) fn put_in_order(&self, operation: Option<&str>, data: &mut Value) {
        let found = || MemberOrder::of(self.document(), operation);
        if self.has_one_operation() {
            self.0.order.get_or_init(found).arrange(data);
        } else {
            found().arrange(data);
        }
    }
}

impl fmt::Debug for KeptDocument {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeptDocument")
    }
}

impl fmt::Debug for ParsedDocuments {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ParsedDocuments")
    }
}

impl Default for ParsedDocuments {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(KEPT))))
    }
}

impl ParsedDocuments {
    /// Gives a request its parsed document, if the document may be cached. If it does not parse, the schema parses it
    /// again and reports the error.
    pub(super) fn give(&self, request: &mut Request) {
        if !may_be_kept(&request.query) {
            return;
        }
        let known = self.lock().get(&request.query).cloned();
        let document = if let Some(document) = known {
            request.set_parsed_query(document.document().clone());
            document
        } else if let Ok(document) = request.parsed_query() {
            let document = KeptDocument::new(document.clone());
            self.lock().put(request.query.clone(), document.clone());
            document
        } else {
            return;
        };
        request.data.insert(document);
    }

    fn lock(&self) -> MutexGuard<'_, Documents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A document with string literals may hold personal data, which must not stay in memory. It is also unlikely to be
/// sent again.
pub(super) fn may_be_kept(document: &str) -> bool {
    document.len() <= LONGEST && !document.contains('"')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use async_graphql::{EmptyMutation, EmptySubscription, Object, Schema, Variables, value};
    use tandem_front_door::graphql::VariablesChecked;

    use super::*;
    use crate::graphql::ErrorCodes;

    struct Query;

    #[Object]
    impl Query {
        async fn twice(&self, number: i32) -> i32 {
            number * 2
        }
    }

    fn kept(documents: &ParsedDocuments) -> usize {
        documents.lock().len()
    }

    #[tokio::test]
    async fn a_kept_document_is_answered_with_the_variables_and_operation_of_each_request() {
        let schema = Schema::new(Query, EmptyMutation, EmptySubscription);
        let documents = ParsedDocuments::default();
        let document = "query A($n: Int!) { twice(number: $n) } query B { four: twice(number: 2) }";
        for (operation, number, answer) in [
            ("A", 1, value!({"twice": 2})),
            ("A", 5, value!({"twice": 10})),
            ("B", 1, value!({"four": 4})),
        ] {
            let mut request = Request::new(document)
                .operation_name(operation)
                .variables(Variables::from_value(value!({ "n": number })));
            documents.give(&mut request);
            assert_eq!(schema.execute(request).await.data, answer);
            assert_eq!(kept(&documents), 1);
        }
    }

    #[tokio::test]
    async fn a_kept_document_is_validated_again_unless_it_was_valid_and_the_variables_are_checked()
    {
        let schema = Schema::build(Query, EmptyMutation, EmptySubscription)
            .extension(ErrorCodes)
            .finish();
        let documents = ParsedDocuments::default();
        let asked = async |document: &str, number: Value, is_checked: bool| {
            let mut request =
                Request::new(document).variables(Variables::from_value(value!({ "n": (number) })));
            documents.give(&mut request);
            if is_checked {
                request = request.data(VariablesChecked);
            }
            schema.execute(request).await
        };
        let document = "query A($n: Int!) { twice(number: $n) }";
        let text = || Value::from("one");
        // Validation refuses the whole operation, a resolver its field.
        let refused = async |is_checked| {
            let errors = asked(document, text(), is_checked).await.errors;
            errors[0].path.is_empty()
        };
        assert!(refused(true).await, "it was not valid so far");
        let answer = asked(document, Value::from(2), false).await;
        assert_eq!(answer.data, value!({"twice": 4}));
        assert!(refused(false).await, "nobody has checked the variables");
        assert!(!refused(true).await);
        let answer = asked(document, Value::from(3), true).await;
        assert_eq!(answer.data, value!({"twice": 6}));
        for _ in 0..2 {
            let unknown = asked(
                "query A($n: Int!) { thrice(number: $n) }",
                Value::from(1),
                true,
            );
            assert!(unknown.await.errors[0].message.contains("thrice"));
        }
    }

    #[test]
    fn what_may_hold_somebodys_data_is_not_kept() {
        let documents = ParsedDocuments::default();
        let long = format!("{{ twice(number: 1) }} #{}", "x".repeat(LONGEST));
        for document in [
            r#"mutation { eraseCustomer(id: "ada") { id } }"#,
            r#"{ customer(id: """ada""") { id } }"#,
            long.as_str(),
            "{ twice(",
        ] {
            documents.give(&mut Request::new(document));
            assert_eq!(kept(&documents), 0, "{document}");
        }
    }

    #[test]
    fn no_more_are_kept_than_were_used_last() {
        let documents = ParsedDocuments::default();
        for number in 0..2 * KEPT.get() {
            documents.give(&mut Request::new(format!("{{ twice(number: {number}) }}")));
        }
        assert_eq!(kept(&documents), KEPT.get());
        let last = format!("{{ twice(number: {}) }}", 2 * KEPT.get() - 1);
        assert!(documents.lock().contains(&last));
    }
}
