//! The forms in which a document is executed.
//!
//! One form is for all requests. The others are for requests that omit variables whose places have a default.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use apollo_compiler::executable::{ExecutableDocument, Operation};

use super::absent_variables::defaulted;
use super::rewrite::Rewriting;
use super::schema::GraphSchema;
use super::treatment::{OTHER, Treatment, is_known};

/// The most forms of one document for requests that omit variables.
const MOST_VARIANTS: usize = 16;

/// The forms of a document for requests that omit variables whose places have a default.
#[derive(Debug)]
pub(super) struct Variants {
    schema: GraphSchema,
    document: ExecutableDocument,
    /// The names of those variables, in order.
    optional: Vec<String>,
    treatment: Treatment,
    known: Mutex<HashMap<Vec<usize>, Arc<str>>>,
}

impl Variants {
    /// `None` if the operation has no such variables.
    pub(super) fn of(
        schema: &GraphSchema,
        document: &ExecutableDocument,
        operation: &Operation,
        treatment: &Treatment,
    ) -> Option<Self> {
        let optional = optional_variables(schema, document, operation);
        (!optional.is_empty()).then(|| Self {
            schema: schema.clone(),
            document: document.clone(),
            optional,
            treatment: treatment.clone(),
            known: Mutex::default(),
        })
    }

    /// The form of the operation with this name, for a request with the variables that `is_given` accepts. `None` if
    /// the common form fits.
    pub(super) fn without_absent(
        &self,
        name: Option<&str>,
        is_given: impl Fn(&str) -> bool,
    ) -> Option<Arc<str>> {
        let absent: Vec<usize> = self
            .optional
            .iter()
            .enumerate()
            .filter(|(_, name)| !is_given(name))
            .map(|(at, _)| at)
            .collect();
        if absent.is_empty() {
            return None;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = known.get(&absent) {
            return Some(Arc::clone(text));
        }
        let names = absent
            .iter()
            .filter_map(|at| self.optional.get(*at).map(String::as_str))
            .collect();
        let operation = self.document.operations.get(name).ok()?;
        let text: Arc<str> = write(
            &self.schema,
            &self.document,
            operation,
            &self.treatment,
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

/// A document in one of its forms.
pub(super) struct Written {
    pub(super) text: Option<String>,
    pub(super) has_fillers: bool,
    pub(super) has_renamed: bool,
}

pub(super) fn write(
    schema: &GraphSchema,
    document: &ExecutableDocument,
    operation: &Operation,
    treatment: &Treatment,
    absent: Option<&HashSet<&str>>,
) -> Written {
    let mut rewriting = Rewriting::of(schema, document, operation);
    rewriting.exact_numbers();
    if !treatment.is_federated {
        rewriting.conditions_around_typenames();
    }
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

/// Nullable variables without a default of their own, at places that have one.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::test_support::documents;

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
}
