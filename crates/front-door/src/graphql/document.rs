//! Checks documents and caches the result.
//!
//! A document is parsed with limits, counted, validated against the schema, and rewritten into the form that is
//! executed. The cache has the text as its key, so a document that comes again costs one look-up.

use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use apollo_compiler::ast::{self, OperationType};
use apollo_compiler::parser::Parser;
use apollo_compiler::validation::DiagnosticList;
use lru::LruCache;

use super::bounds::{self, Bounds};
use super::chosen_operation::Chosen;
use super::diagnostics::refused;
use super::document_limits::DocumentLimits;
use super::error::{Refused, RequestError};
use super::prepared_operation::{Prepared, unvalidated};
use super::schema::GraphSchema;
use super::treatment::{Treatment, kept_name};
use super::weight::Weight;
use super::{
    aliases, duplicates, escapes, input_fields, introspection, literals, subscription_root, tokens,
    variable_usages,
};

/// How many documents the cache keeps: the most recently used ones.
const KEPT: NonZeroUsize = NonZeroUsize::new(1_024).unwrap();
/// The most bytes of a document that is cached.
const LONGEST_KEPT: usize = 8 * 1_024;

/// The cache of checked documents.
#[derive(Debug)]
pub(super) struct Documents {
    schema: Option<GraphSchema>,
    limits: DocumentLimits,
    treatment: Treatment,
    kept: Mutex<LruCache<String, Arc<Vec<Prepared>>>>,
}

impl Documents {
    /// Without a schema, documents are parsed and counted but not validated.
    pub(super) fn new(
        schema: Option<GraphSchema>,
        limits: DocumentLimits,
        treatment: Treatment,
    ) -> Self {
        Self {
            schema,
            limits,
            treatment,
            kept: Mutex::new(LruCache::new(KEPT)),
        }
    }

    pub(super) fn schema(&self) -> Option<&GraphSchema> {
        self.schema.as_ref()
    }

    pub(super) fn limits(&self) -> &DocumentLimits {
        &self.limits
    }

    pub(super) fn treatment(&self) -> &Treatment {
        &self.treatment
    }

    /// The name of an operation for logs and labels: a known name, or one name for all others.
    pub(super) fn kept_name(&self, name: Option<&str>) -> Option<String> {
        name.map(|name| kept_name(&self.treatment, name))
    }

    /// How expensive it is to check a document; `None` if the cache has it. This scans the document and does not parse
    /// it.
    ///
    /// # Errors
    /// When the document is larger, or nests deeper, than the limits.
    pub(super) fn weight(&self, text: &str) -> Result<Option<Weight>, RequestError> {
        if may_be_kept(text) && self.lock().contains(text) {
            return Ok(None);
        }
        Ok(Some(Weight {
            tokens: tokens::count(text, &self.limits)?,
            bytes: text.len(),
        }))
    }

    /// Selects the operation with this name, or the only one. If [`Documents::weight`] did not scan the document, only
    /// the parser's limits apply.
    ///
    /// # Errors
    /// When the document cannot be parsed, is too large or not valid, or has no such operation.
    pub(super) fn operation(&self, text: &str, name: Option<&str>) -> Result<Chosen, Refused> {
        let known = may_be_kept(text).then(|| self.lock().get(text).cloned());
        let operations = match known.flatten() {
            Some(operations) => operations,
            None => {
                let operations = Arc::new(self.check(text)?);
                if may_be_kept(text) {
                    self.lock().put(text.to_owned(), Arc::clone(&operations));
                }
                operations
            }
        };
        Ok(Chosen::of(operations, name)?)
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<String, Arc<Vec<Prepared>>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, text: &str) -> Result<Vec<Prepared>, Refused> {
        if text.trim().is_empty() {
            return Err(RequestError::request("`query` is missing or empty").into());
        }
        let resolved = escapes::resolve(text)?;
        let mut parser = Parser::new()
            .recursion_limit(self.limits.recursion)
            .token_limit(self.limits.tokens);
        let parsed = parser.parse_ast(resolved.as_ref(), "document");
        let mut document = match parsed {
            Ok(document) => document,
            Err(error) => return Err(self.unparsed(&parser, &error.errors)),
        };
        let bounds = Bounds {
            depth: self.limits.depth,
            fields: self.limits.fields,
        };
        bounds::check(&document, bounds)?;
        input_fields::check(&document)?;
        // Escapes and block strings are written out, because some later readers do not know all of them.
        let is_resolved = matches!(resolved, Cow::Owned(_)) || text.contains("\"\"\"");
        match &self.schema {
            Some(schema) => {
                let root = schema.valid().root_operation(OperationType::Subscription);
                let is_merged =
                    root.is_some_and(|root| subscription_root::merge(&mut document, root));
                let is_merged = duplicates::merge(&mut document) || is_merged;
                self.validate(schema, &document, is_resolved || is_merged)
            }
            None => Ok(unvalidated(&document, is_resolved)),
        }
    }

    fn unparsed(&self, parser: &Parser, errors: &DiagnosticList) -> Refused {
        let DocumentLimits {
            tokens, recursion, ..
        } = self.limits;
        if parser.tokens_reached() > tokens {
            tokens::too_many(tokens).into()
        } else if parser.recursion_reached() > recursion {
            tokens::too_deep(recursion).into()
        } else {
            refused(errors, &RequestError::syntax)
        }
    }

    fn validate(
        &self,
        schema: &GraphSchema,
        document: &ast::Document,
        is_changed: bool,
    ) -> Result<Vec<Prepared>, Refused> {
        let document = document
            .to_executable_validate(schema.valid())
            .map_err(|error| refused(&error.errors, &RequestError::validation))?;
        introspection::check(&document)?;
        let document = document.into_inner();
        literals::check(schema, &document)?;
        variable_usages::check(schema, &document)?;
        if self.treatment.is_federated && aliases::takes_names(&document.to_string()) {
            let message = "names that begin with `tandemAlias_` are the gateway's own";
            return Err(RequestError::validation(message, None).into());
        }
        document
            .operations
            .iter()
            .map(|operation| {
                Ok(Prepared::of(
                    schema,
                    &document,
                    operation,
                    &self.treatment,
                    is_changed,
                ))
            })
            .collect()
    }
}

/// A document with string literals may contain personal data, which must not stay in memory. It will hardly come again.
fn may_be_kept(document: &str) -> bool {
    document.len() <= LONGEST_KEPT && !document.contains('"')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::test_support::documents;
    use super::*;

    fn error_of(document: &str) -> serde_json::Value {
        let refused = documents(false).operation(document, None).unwrap_err();
        refused.errors()[0].clone()
    }

    #[test]
    fn what_does_not_parse_is_told_in_our_own_words_with_its_place() {
        for document in [
            r#"{a{b{"a string token that is long"}}}"#,
            "{ customer(",
            "{ customer(id: 1) { id }",
            "\u{1}",
            "query {",
            "{a}}",
            "{ a(b: \"x) }",
            "type Query { a: Int }",
            "fragment f on Query { __typename }",
            "\"\"\"",
        ] {
            let error = error_of(document);
            assert_eq!(error["extensions"]["code"], "BAD_USER_INPUT", "{error}");
            assert!(!error["message"].as_str().unwrap().is_empty());
        }
        assert_eq!(error_of("{\n  a(b: \"x) }")["locations"][0]["line"], 2);
    }

    #[test]
    fn what_nests_too_deep_is_refused_whatever_nests() {
        for document in [
            format!("{}{}", "{a".repeat(45), "}".repeat(45)),
            format!("{{a(b:{}1{})}}", "[".repeat(60), "]".repeat(60)),
            format!("{{a(b:{}1{})}}", "{x:".repeat(60), "}".repeat(60)),
            format!("query($a:{}Int{}){{a}}", "[".repeat(60), "]".repeat(60)),
            format!("{{{}a{}}}", "...{".repeat(60), "}".repeat(60)),
            "{a".repeat(200_000),
            "[".repeat(200_000),
            "{a(b:[".repeat(100_000),
        ] {
            error_of(&document);
        }
    }

    #[test]
    fn what_the_schema_does_not_have_is_a_validation_error() {
        for document in [
            "{__typename{x}}",
            "{__typename@nope}",
            r#"mutation{advanceOrder(id:"1",to:"SHIPPED"){order{id}}}"#,
            "{customer(id:1){shoeSize}}",
            "{customer(id:1){name}}",
            r#"subscription{a:customerUpdated(id:"1"){id} b:customerUpdated(id:"2"){id}}"#,
            r#"subscription{...x} fragment x on Subscription{a:customerUpdated(id:"1"){id} b:customerUpdated(id:"2"){id}}"#,
            r#"subscription($s:Boolean!){customerUpdated(id:"1")@skip(if:$s){id}}"#,
            r#"subscription{__typename}"#,
            "query($id:Nothing){customer(id:$id){id}}",
            "query($id:ID){customer(id:$id){id}}",
        ] {
            let error = error_of(document);
            assert_eq!(error["extensions"]["code"], "BAD_USER_INPUT", "{document}");
        }
        assert_eq!(error_of("{customer{id}}")["extensions"]["field"], "id");
    }

    #[test]
    fn what_merges_and_what_tools_ask_is_valid() {
        let documents = documents(false);
        for document in [
            r#"subscription{customerUpdated(id:"1"){id} customerUpdated(id:"1"){replica{revision}}}"#,
            r#"subscription{...{customerUpdated(id:"1"){id}}}"#,
            "query($n:Int){customers(first:$n){nodes{id}}}",
            "{__schema{types{name fields{name type{ofType{ofType{name}}}}}}}",
        ] {
            documents.operation(document, None).unwrap();
        }
    }

    #[test]
    fn documents_that_may_hold_somebodys_data_are_not_kept_and_the_others_within_a_bound() {
        let documents = documents(false);
        for number in 0..KEPT.get() + 10 {
            documents
                .operation(&format!("{{customer(id:{number}){{id}}}}"), None)
                .unwrap();
        }
        documents
            .operation(r#"{customer(id:"ada"){id}}"#, None)
            .unwrap();
        let kept = documents.lock();
        assert_eq!(kept.len(), KEPT.get());
        assert!(!kept.contains(r#"{customer(id:"ada"){id}}"#));
    }
}
