//! Documents, checked once: parsed with limits, counted, validated against the schema, and put into the form that is carried out.
//!
//! What has been checked is kept by its text, so that a document that comes again costs a look-up.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use apollo_compiler::ast::{self, Definition, OperationType};
use apollo_compiler::executable::{ExecutableDocument, Operation};
use apollo_compiler::parser::Parser;
use apollo_compiler::validation::DiagnosticList;
use lru::LruCache;
use tandem_runtime::exemplars;
use tandem_runtime::trace_context::TraceContext;

use super::bounds::{self, Bounds};
use super::cost::Cost;
use super::error::{Code, Location, Refused, RequestError};
use super::rewrite::{Rewriting, defaulted};
use super::schema::GraphSchema;
use super::variables::Variable;
use super::{
    aliases, duplicates, escapes, introspection, literals, steps, subscription_root, tokens,
};
use crate::http::admission::cost_of_bytes;

/// How many documents are kept: those that were used last.
const KEPT: NonZeroUsize = NonZeroUsize::new(1_024).unwrap();
/// Most bytes of a document that is kept.
const LONGEST_KEPT: usize = 8 * 1_024;
/// So many tokens are part of what a request costs in any case.
const LIGHT: usize = 250;
/// So many more cost as much as a request: they are parsed, validated and written again, and then planned by what stands behind.
const TOKENS_OF_A_REQUEST: usize = 5;
/// What has more tokens, or more bytes, takes long to check.
const TAKES_LONG: usize = 500;
const LONG: usize = 16 * 1_024;
/// Most forms of one document without some of its variables.
const MOST_VARIANTS: usize = 16;
/// Most errors of one document that are told.
const MOST_ERRORS: usize = 10;
/// The name that an operation gets which is none of the known ones.
const OTHER: &str = "Other";
/// What one without a name is called where it is counted.
const UNNAMED: &str = "Unnamed";
/// How long operations took, by name.
const OPERATIONS: &str = "graphql_operations_seconds";

/// How large a document may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentLimits {
    /// Tokens.
    pub tokens: usize,
    /// Selections and values inside each other while parsing.
    pub recursion: usize,
    /// Fields inside each other.
    pub depth: usize,
    /// Fields, with fragments in place.
    pub fields: u64,
    /// Fields of the answer, see `Cost`.
    pub cost: u64,
}

impl Default for DocumentLimits {
    fn default() -> Self {
        Self {
            tokens: 5_000,
            recursion: 40,
            depth: 15,
            fields: 5_000,
            cost: 50_000,
        }
    }
}

/// How much there is to check of a document that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weight {
    tokens: usize,
    bytes: usize,
}

impl Weight {
    /// What checking it costs beside its request, in requests.
    pub(super) fn cost(self) -> u32 {
        let tokens = self.tokens.saturating_sub(LIGHT) / TOKENS_OF_A_REQUEST;
        u32::try_from(tokens)
            .unwrap_or(u32::MAX)
            .saturating_add(cost_of_bytes(self.bytes))
    }

    /// Whether it keeps a thread for longer than others should wait.
    pub(super) fn takes_long(self) -> bool {
        self.tokens > TAKES_LONG || self.bytes > LONG
    }
}

/// How documents are treated.
#[derive(Debug, Clone, Default)]
pub struct Treatment {
    /// Operations whose names are kept; all others get one name. Without it every name is kept.
    pub known_operations: Option<HashSet<String>>,
    /// Whether selections that may come out empty are filled.
    pub fill_empty_selections: bool,
    /// Whether a federated router stands behind: the fields of a mutation are handed on one after the other, and aliases that cover
    /// what it asks for by itself get other names.
    pub is_federated: bool,
}

/// What kind an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Query,
    Mutation,
    Subscription,
}

/// An operation that may be carried out.
#[derive(Debug)]
pub(super) struct Prepared {
    /// As the client named it.
    name: Option<String>,
    /// As it is carried out.
    pub(super) sent_name: Option<String>,
    pub(super) kind: Kind,
    /// The document in the form that is carried out, if that is not the client's.
    pub(super) rewritten: Option<Arc<str>>,
    pub(super) cost: Option<Cost>,
    pub(super) variables: Vec<Variable>,
    /// Whether answers hold fields that the client did not ask for.
    pub(super) has_fillers: bool,
    /// Whether answers hold names that are not the client's.
    pub(super) has_renamed: bool,
    /// The fields of a mutation by their keys, if they are several: each is an operation of its own.
    pub(super) steps: Vec<(Arc<str>, Prepared)>,
    /// The keys of a subscription's root field and of its cursor, if it is selected.
    pub(super) cursor: Option<(String, Option<String>)>,
    variants: Option<Variants>,
}

/// Forms of a document for requests that leave variables out whose place has a default.
#[derive(Debug)]
struct Variants {
    schema: GraphSchema,
    document: ExecutableDocument,
    /// Names of those variables, in order.
    optional: Vec<String>,
    treatment: Treatment,
    known: Mutex<HashMap<Vec<usize>, Arc<str>>>,
}

/// The documents that were checked last.
#[derive(Debug)]
pub(super) struct Documents {
    schema: Option<GraphSchema>,
    limits: DocumentLimits,
    treatment: Treatment,
    kept: Mutex<LruCache<String, Arc<Vec<Prepared>>>>,
}

/// An operation of a checked document.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    operations: Arc<Vec<Prepared>>,
    at: usize,
    begun: Instant,
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

impl Documents {
    /// Without a schema documents are parsed and counted, not validated.
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

    /// The name of an operation as logs and labels may have it: one of those that are known, or one for all others.
    pub(super) fn told_name(&self, name: Option<&str>) -> Option<String> {
        name.map(|name| told(&self.treatment, name))
    }

    /// How much there is to check of a document, or nothing if it is known: looked over, not parsed.
    ///
    /// # Errors
    /// When it is larger, or nests deeper, than what is taken.
    pub(super) fn weight(&self, text: &str) -> Result<Option<Weight>, RequestError> {
        if may_be_kept(text) && self.lock().contains(text) {
            return Ok(None);
        }
        Ok(Some(Weight {
            tokens: tokens::count(text, &self.limits)?,
            bytes: text.len(),
        }))
    }

    /// The operation of this name, or the only one. What [`Documents::weight`] has not looked over is looked over by the parser alone.
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
        let at = choose(&operations, name)?;
        Ok(Chosen {
            operations,
            at,
            begun: Instant::now(),
        })
    }

    /// Counts an operation that was answered, where the names that it may have are bounded; within this trace if that is recorded.
    #[allow(
        clippy::disallowed_methods,
        reason = "when an exemplar was measured decides nothing"
    )]
    pub(super) fn count(&self, operation: &Chosen, has_errors: bool, trace: Option<&TraceContext>) {
        if self.treatment.known_operations.is_none() {
            return;
        }
        let kind = match operation.kind {
            Kind::Query => "query",
            Kind::Mutation => "mutation",
            Kind::Subscription => "subscription",
        };
        let name = operation.sent_name.as_deref().unwrap_or(UNNAMED);
        let outcome = if has_errors { "ERROR" } else { "SUCCESS" };
        let seconds = operation.begun.elapsed().as_secs_f64();
        metrics::histogram!(
            OPERATIONS,
            "type" => kind,
            "operation" => name.to_owned(),
            "outcome" => outcome,
        )
        .record(seconds);
        if let Some(trace) = trace {
            let labels = [("type", kind), ("operation", name), ("outcome", outcome)];
            exemplars::keep(OPERATIONS, &labels, seconds, trace, SystemTime::now());
        }
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
        let is_resolved = matches!(resolved, Cow::Owned(_));
        match &self.schema {
            Some(schema) => {
                let root = schema.valid().root_operation(OperationType::Subscription);
                let is_merged =
                    root.is_some_and(|root| subscription_root::merge(&mut document, root));
                let is_merged = duplicates::merge(&mut document) || is_merged;
                self.validate(schema, &document, is_resolved || is_merged)
            }
            None => Ok(unvalidated(
                &document,
                is_resolved.then(|| resolved.as_ref()),
            )),
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
        if self.treatment.is_federated && aliases::takes_names(&document.to_string()) {
            let message = "names that begin with `tandemAlias_` are the gateway's own";
            return Err(RequestError::validation(message, None).into());
        }
        document
            .operations
            .iter()
            .map(|operation| Ok(self.prepare(schema, &document, operation, is_changed)))
            .collect()
    }

    fn prepare(
        &self,
        schema: &GraphSchema,
        document: &ExecutableDocument,
        operation: &Operation,
        is_changed: bool,
    ) -> Prepared {
        let written = write(schema, document, operation, &self.treatment, None);
        let name = operation.name.as_ref().map(ToString::to_string);
        // What escapes were resolved to, and roots merged to, must be sent, too.
        let rewritten = written
            .text
            .or_else(|| is_changed.then(|| document.serialize().no_indent().to_string()));
        let optional = optional_variables(schema, document, operation);
        let steps = self.steps(schema, document, operation);
        Prepared {
            sent_name: self.told_name(name.as_deref()),
            name,
            kind: match operation.operation_type {
                OperationType::Query => Kind::Query,
                OperationType::Mutation => Kind::Mutation,
                OperationType::Subscription => Kind::Subscription,
            },
            rewritten: rewritten.map(Arc::from),
            cost: Some(Cost::of(document, operation)),
            variables: operation
                .variables
                .iter()
                .map(|variable| Variable {
                    name: variable.name.to_string(),
                    ty: variable.ty.as_ref().clone(),
                    is_noted: schema.is_noted(&variable.ty),
                })
                .collect(),
            has_fillers: written.has_fillers || steps.iter().any(|(_, step)| step.has_fillers),
            has_renamed: written.has_renamed,
            steps,
            cursor: self.cursor(schema, document, operation),
            variants: (!optional.is_empty()).then(|| Variants {
                schema: schema.clone(),
                document: document.clone(),
                optional,
                treatment: self.treatment.clone(),
                known: Mutex::default(),
            }),
        }
    }
}

impl Documents {
    fn steps(
        &self,
        schema: &GraphSchema,
        document: &ExecutableDocument,
        operation: &Operation,
    ) -> Vec<(Arc<str>, Prepared)> {
        if !self.treatment.is_federated {
            return Vec::new();
        }
        steps::split(document, operation)
            .into_iter()
            .filter_map(|step| {
                let operation = step.document.operations.iter().next()?;
                let prepared = self.prepare(schema, &step.document, operation, true);
                Some((step.key, prepared))
            })
            .collect()
    }

    /// The keys of a subscription's root field and of its cursor, as answers have them before the client's names are restored.
    fn cursor(
        &self,
        schema: &GraphSchema,
        document: &ExecutableDocument,
        operation: &Operation,
    ) -> Option<(String, Option<String>)> {
        let (root, cursor) = cursor(document, operation)?;
        let name = |key: String| match aliases::handed_on(schema, &key) {
            Some(other) if self.treatment.is_federated => other,
            _ => key,
        };
        Some((name(root), cursor.map(name)))
    }
}

impl Prepared {
    /// Whether answers are not yet as the client asked for them.
    pub(super) fn is_altered(&self) -> bool {
        self.has_fillers || self.has_renamed
    }

    /// The form for a request that brings variables as `is_given` says; `None` if it is the one for all of them.
    pub(super) fn without_absent(&self, is_given: impl Fn(&str) -> bool) -> Option<Arc<str>> {
        let variants = self.variants.as_ref()?;
        let absent: Vec<usize> = variants
            .optional
            .iter()
            .enumerate()
            .filter(|(_, name)| !is_given(name))
            .map(|(at, _)| at)
            .collect();
        if absent.is_empty() {
            return None;
        }
        let mut known = variants
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = known.get(&absent) {
            return Some(Arc::clone(text));
        }
        let names = absent
            .iter()
            .filter_map(|at| variants.optional.get(*at).map(String::as_str))
            .collect();
        let operation = variants
            .document
            .operations
            .get(self.name.as_deref())
            .ok()?;
        let text: Arc<str> = write(
            &variants.schema,
            &variants.document,
            operation,
            &variants.treatment,
            Some(&names),
        )
        .text?
        .into();
        if known.len() < MOST_VARIANTS {
            known.insert(absent, Arc::clone(&text));
        }
        Some(text)
    }
}

struct Written {
    text: Option<String>,
    has_fillers: bool,
    has_renamed: bool,
}

fn write(
    schema: &GraphSchema,
    document: &ExecutableDocument,
    operation: &Operation,
    treatment: &Treatment,
    absent: Option<&HashSet<&str>>,
) -> Written {
    let mut rewriting = Rewriting::of(schema, document, operation);
    rewriting.exact_decimals();
    if let Some(absent) = absent {
        rewriting.without_variables(absent);
    }
    let has_renamed = treatment.is_federated && rewriting.uncovered_keys();
    let has_fillers = treatment.fill_empty_selections && rewriting.filled_selections();
    if let Some(name) = &operation.name
        && !is_known(treatment, name)
    {
        rewriting.rename(OTHER);
    }
    Written {
        text: rewriting.written(),
        has_fillers,
        has_renamed,
    }
}

fn told(treatment: &Treatment, name: &str) -> String {
    if is_known(treatment, name) {
        name.to_owned()
    } else {
        OTHER.to_owned()
    }
}

fn is_known(treatment: &Treatment, name: &str) -> bool {
    treatment
        .known_operations
        .as_ref()
        .is_none_or(|known| known.contains(name))
}

/// Nullable variables without a default of their own, in places that have one.
fn optional_variables(
    schema: &GraphSchema,
    document: &ExecutableDocument,
    operation: &Operation,
) -> Vec<String> {
    if operation.variables.is_empty() {
        return Vec::new();
    }
    let defaulted = defaulted(schema, document, operation);
    operation
        .variables
        .iter()
        .filter(|variable| !variable.ty.is_non_null() && variable.default_value.is_none())
        .map(|variable| variable.name.to_string())
        .filter(|name| defaulted.contains(name))
        .collect()
}

fn cursor(
    document: &ExecutableDocument,
    operation: &Operation,
) -> Option<(String, Option<String>)> {
    if !operation.is_subscription() {
        return None;
    }
    let root = operation.selection_set.root_fields(document).next()?;
    let cursor = root
        .selection_set
        .root_fields(document)
        .find(|field| field.name == "cursor")
        .map(|field| field.response_key().to_string());
    Some((root.response_key().to_string(), cursor))
}

/// Operations of a document that no schema says anything about.
fn unvalidated(document: &ast::Document, resolved: Option<&str>) -> Vec<Prepared> {
    document
        .definitions
        .iter()
        .filter_map(Definition::as_operation_definition)
        .map(|operation| Prepared {
            name: operation.name.as_ref().map(ToString::to_string),
            sent_name: operation.name.as_ref().map(ToString::to_string),
            kind: match operation.operation_type {
                OperationType::Query => Kind::Query,
                OperationType::Mutation => Kind::Mutation,
                OperationType::Subscription => Kind::Subscription,
            },
            rewritten: resolved.map(Arc::from),
            cost: None,
            variables: Vec::new(),
            has_fillers: false,
            has_renamed: false,
            steps: Vec::new(),
            cursor: None,
            variants: None,
        })
        .collect()
}

/// Which operation is meant (GraphQL, GetOperation).
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
    RequestError::document(
        "operation",
        Code::BadUserInput,
        format!("{what}; it has {}", names.join(", ")),
    )
    .with("field", "operationName")
}

/// A document with texts in it may hold somebody's data, which must not stay in memory, and will hardly come again.
fn may_be_kept(document: &str) -> bool {
    document.len() <= LONGEST_KEPT && !document.contains('"')
}

fn refused(
    errors: &DiagnosticList,
    of_kind: &dyn Fn(String, Option<Location>) -> RequestError,
) -> Refused {
    let mut told: Vec<RequestError> = errors
        .iter()
        .take(MOST_ERRORS)
        .map(|error| {
            let written = error.to_json();
            let location = written.locations.first().map(|place| Location {
                line: place.line,
                column: place.column,
            });
            let argument = required_argument(&written.message).map(str::to_owned);
            let told = of_kind(written.message, location);
            match argument {
                Some(argument) => told.with("field", argument),
                None => told,
            }
        })
        .collect();
    if told.is_empty() {
        told.push(of_kind("the document is not valid".to_owned(), None));
    }
    Refused::of(told)
}

/// The name in "the required argument `Query.customer(id:)` is not provided".
fn required_argument(message: &str) -> Option<&str> {
    let coordinate = message
        .strip_prefix("the required argument `")?
        .split('`')
        .next()?;
    coordinate.rsplit_once('(')?.1.strip_suffix(":)")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn documents(for_a_router: bool) -> Documents {
        let schema = GraphSchema::from_sdl(include_str!("../../../../schema/supergraph.graphql"));
        let treatment = Treatment {
            known_operations: Some(HashSet::from(["Known".to_owned()])),
            fill_empty_selections: for_a_router,
            is_federated: for_a_router,
        };
        Documents::new(Some(schema.unwrap()), DocumentLimits::default(), treatment)
    }

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
        assert!(documents.operation("{__typename}", Some("C")).is_err());
    }

    #[test]
    fn unknown_names_become_one() {
        let documents = documents(false);
        let known = documents
            .operation("query Known{__typename}", None)
            .unwrap();
        assert!(known.rewritten.is_none());
        for name in ["A", "B"] {
            let operation = documents
                .operation(&format!("query {name}{{__typename}}"), None)
                .unwrap();
            assert_eq!(operation.sent_name.as_deref(), Some("Other"));
            assert!(
                operation
                    .rewritten
                    .as_ref()
                    .unwrap()
                    .contains("query Other")
            );
        }
    }

    #[test]
    fn an_alias_that_covers_a_key_gets_a_name_of_its_own() {
        let documents = documents(true);
        for (document, renamed) in [
            (
                "{customers{nodes{id:createdAt}}}",
                "tandemAlias_id: createdAt",
            ),
            (
                "{customers{nodes{id:__typename revision}}}",
                "tandemAlias_id: __typename",
            ),
            (
                "{customers{nodes{...a}}} fragment a on Customer{__typename:id}",
                "tandemAlias___typename: id",
            ),
        ] {
            let operation = documents.operation(document, None).unwrap();
            assert!(operation.has_renamed);
            let text = operation.rewritten.as_ref().unwrap();
            assert!(text.contains(renamed), "{text}");
        }
        let plain = documents
            .operation("{customers{nodes{id:id a:id}}}", None)
            .unwrap();
        assert!(!plain.has_renamed && plain.rewritten.is_none());
        assert!(
            documents
                .operation("{customers{nodes{tandemAlias_id:id}}}", None)
                .is_err()
        );
        let lagging = documents
            .operation("subscription{orderUpdated{id:cursor}}", None)
            .unwrap();
        assert_eq!(
            lagging.cursor.as_ref().unwrap().1.as_deref(),
            Some("tandemAlias_id")
        );
    }

    #[test]
    fn an_absent_variable_leaves_the_default_of_its_place() {
        let documents = documents(false);
        let operation = documents
            .operation("query($n:Int){customers(first:$n){nodes{id}}}", None)
            .unwrap();
        assert!(operation.without_absent(|_| true).is_none());
        for _ in 0..2 {
            let text = operation.without_absent(|_| false).unwrap();
            assert!(!text.contains("first") && !text.contains("$n"), "{text}");
        }
    }

    #[test]
    fn a_subscriptions_cursor_is_found_under_its_alias() {
        let documents = documents(false);
        let with = r#"subscription{o:orderUpdated(customerId:"1"){...u}} fragment u on OrderUpdate{c:cursor}"#;
        let operation = documents.operation(with, None).unwrap();
        assert_eq!(
            operation.cursor,
            Some(("o".to_owned(), Some("c".to_owned())))
        );
        let without = r#"subscription{orderUpdated{order{id}}}"#;
        assert_eq!(
            documents
                .operation(without, None)
                .unwrap()
                .cursor
                .as_ref()
                .unwrap()
                .1,
            None
        );
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
