//! How large a document is once its fragments are expanded.
//!
//! The size is computed by arithmetic, each fragment once, before anything expands them. Twenty fragments that each use
//! the next one twice make a million fields.

use std::collections::HashMap;

use apollo_compiler::ast::{Definition, Document, FragmentDefinition, Selection};
use apollo_compiler::{Name, Node};

use super::error::RequestError;

/// The longest chain of nested fields and fragments. It bounds the recursion of everything that reads the document
/// later.
const LONGEST_CHAIN: usize = 100;

/// The bounds of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// The deepest nesting of fields.
    pub(super) depth: usize,
    /// The most fields, with all fragments expanded.
    pub(super) fields: u64,
}

/// The size of a selection set with its fragments expanded.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    fields: u64,
    depth: usize,
    /// The longest chain of nested fields and fragments inside.
    chain: usize,
}

/// Checks every operation and every fragment of a document.
///
/// # Errors
/// When fragments form a cycle, or when an operation or a fragment exceeds its bounds.
pub(super) fn check(document: &Document, bounds: Bounds) -> Result<(), RequestError> {
    let fragments = document
        .definitions
        .iter()
        .filter_map(Definition::as_fragment_definition)
        .map(|fragment| (fragment.name.clone(), fragment))
        .collect();
    let mut counter = Counter {
        fragments,
        known: HashMap::new(),
        open: Vec::new(),
    };
    for definition in &document.definitions {
        let size = match definition {
            Definition::OperationDefinition(operation) => {
                counter.selections(&operation.selection_set, 0)?
            }
            Definition::FragmentDefinition(fragment) => counter.fragment(&fragment.name, 0)?,
            _ => continue,
        };
        if size.depth > bounds.depth {
            return Err(RequestError::limit(
                format!(
                    "the operation nests fields {} levels deep; {} are taken",
                    size.depth, bounds.depth
                ),
                None,
            ));
        }
        if size.fields > bounds.fields {
            return Err(RequestError::too_expensive(
                size.fields,
                bounds.fields,
                format!(
                    "the operation has {} fields once its fragments are in place; {} are taken",
                    size.fields, bounds.fields
                ),
            ));
        }
    }
    Ok(())
}

fn within_chain(chain: usize) -> Result<(), RequestError> {
    if chain <= LONGEST_CHAIN {
        return Ok(());
    }
    let message =
        format!("fields and fragments stand more than {LONGEST_CHAIN} levels inside each other");
    Err(RequestError::limit(message, None))
}

struct Counter<'a> {
    fragments: HashMap<Name, &'a Node<FragmentDefinition>>,
    known: HashMap<Name, Size>,
    /// Fragments that are being counted. One that appears again closes a cycle.
    open: Vec<Name>,
}

impl Counter<'_> {
    fn selections(&mut self, selections: &[Selection], chain: usize) -> Result<Size, RequestError> {
        within_chain(chain)?;
        let mut size = Size::default();
        for selection in selections {
            let one = match selection {
                Selection::Field(field) => {
                    let below = self.selections(&field.selection_set, chain + 1)?;
                    // Tools nest deeply when they introspect types. `introspection` limits how deep the lists may go
                    // there.
                    let describes = field.name == "__schema" || field.name == "__type";
                    Size {
                        fields: below.fields.saturating_add(1),
                        depth: if describes { 1 } else { below.depth + 1 },
                        chain: below.chain,
                    }
                }
                Selection::InlineFragment(fragment) => {
                    self.selections(&fragment.selection_set, chain + 1)?
                }
                Selection::FragmentSpread(spread) => {
                    self.fragment(&spread.fragment_name, chain + 1)?
                }
            };
            size.fields = size.fields.saturating_add(one.fields);
            size.depth = size.depth.max(one.depth);
            size.chain = size.chain.max(one.chain + 1);
        }
        Ok(size)
    }

    fn fragment(&mut self, name: &Name, chain: usize) -> Result<Size, RequestError> {
        if let Some(size) = self.known.get(name) {
            // It was measured on its own, and its place here may be deeper.
            within_chain(chain + size.chain)?;
            return Ok(*size);
        }
        // Validation reports a fragment that is not defined.
        let Some(fragment) = self.fragments.get(name).copied() else {
            return Ok(Size::default());
        };
        if self.open.contains(name) {
            return Err(RequestError::validation(
                format!("fragment `{name}` contains itself"),
                None,
            ));
        }
        self.open.push(name.clone());
        let size = self.selections(&fragment.selection_set, chain)?;
        self.open.pop();
        self.known.insert(name.clone(), size);
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::error::Code;
    use super::*;

    fn checked(document: &str) -> Result<(), RequestError> {
        let bounds = Bounds {
            depth: 5,
            fields: 100,
        };
        check(&Document::parse(document, "document").unwrap(), bounds)
    }

    /// A chain of fragments, each of which uses the next one `times` times.
    fn chain(length: usize, times: usize) -> String {
        let mut document = "{...f0}".to_owned();
        for at in 0..length {
            let uses = format!("...f{} ", at + 1).repeat(times);
            document.push_str(&format!(" fragment f{at} on Query {{ {uses} }}"));
        }
        format!("{document} fragment f{length} on Query {{ a }}")
    }

    #[test]
    fn fragments_that_multiply_are_counted_without_being_expanded() {
        assert!(checked(&chain(6, 2)).is_ok());
        for (length, times) in [(7, 2), (64, 2), (90, 9), (5, 3)] {
            let error = checked(&chain(length, times)).unwrap_err();
            assert_eq!(error.code(), Code::TooExpensive, "{length} {times}");
        }
    }

    #[test]
    fn a_chain_of_fragments_is_as_long_whatever_order_they_stand_in() {
        // The last fragment comes first, so each one is already known when the fragment that uses it is counted.
        let from_behind = |length: usize| {
            let last = format!("fragment f{length} on Query {{ a }}");
            let others = (0..length)
                .rev()
                .map(|at| format!(" fragment f{at} on Query {{ ...f{} }}", at + 1));
            format!("{last}{} {{...f0}}", others.collect::<String>())
        };
        assert!(checked(&from_behind(95)).is_ok());
        for length in [99, 150, 500] {
            let error = checked(&from_behind(length)).unwrap_err();
            assert!(error.message().contains("100 levels"), "{length}");
            assert!(checked(&chain(length, 1)).is_err(), "{length}");
        }
    }

    #[test]
    fn fragments_that_go_in_a_circle_are_refused() {
        for document in [
            "{...a} fragment a on Query {...a}",
            "{...a} fragment a on Query {x{...b}} fragment b on Query {...c} fragment c on Query {y{...a}}",
            "{x} fragment a on Query {...b} fragment b on Query {...a}",
        ] {
            assert!(
                checked(document)
                    .unwrap_err()
                    .message()
                    .contains("contains itself")
            );
        }
    }

    #[test]
    fn depth_is_counted_through_fragments_and_a_chain_of_fragments_has_an_end() {
        assert!(checked("{a{b{c{d{e}}}}}").is_ok());
        assert!(checked("{a{b{c{d{e{f}}}}}}").is_err());
        assert!(checked("{a{b{...x}}} fragment x on T {c{d{... on T{e{f}}}}}").is_err());
        assert!(checked(&chain(95, 1)).is_ok());
        assert!(
            checked(&chain(150, 1))
                .unwrap_err()
                .message()
                .contains("100 levels")
        );
    }
}
