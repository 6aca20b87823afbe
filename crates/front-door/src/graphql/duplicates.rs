//! Merges selections that occur more than once in a set.
//!
//! Validation compares each pair of fields with the same key. For a thousand repetitions of one field that takes a
//! tenth of a second.

use std::collections::{HashMap, HashSet};

use apollo_compiler::Name;
use apollo_compiler::ast::{Definition, Document, Field, Selection};

/// Merges identical fields of a set (GraphQL, section Field Selection Merging) and drops repeated fragments. Returns
/// whether it changed anything. The order of the answer stays. An invalid document stays invalid.
pub(super) fn merge(document: &mut Document) -> bool {
    let mut is_changed = false;
    for definition in &mut document.definitions {
        match definition {
            Definition::OperationDefinition(operation) if has_some(&operation.selection_set) => {
                merge_set(&mut operation.make_mut().selection_set);
            }
            Definition::FragmentDefinition(fragment) if has_some(&fragment.selection_set) => {
                merge_set(&mut fragment.make_mut().selection_set);
            }
            _ => continue,
        }
        is_changed = true;
    }
    is_changed
}

/// Whether a set, or a set below it, has anything to merge.
fn has_some(set: &[Selection]) -> bool {
    let mut seen = Seen::default();
    set.iter().enumerate().any(|(at, selection)| {
        let is_again = seen.before(at, selection).is_some_and(|before| {
            // Both are fields with the same key, or both are the same fragment.
            match (set.get(before), selection) {
                (Some(Selection::Field(first)), Selection::Field(field)) => is_same(first, field),
                _ => true,
            }
        });
        is_again || has_some(below(selection))
    })
}

fn below(selection: &Selection) -> &[Selection] {
    match selection {
        Selection::Field(field) => &field.selection_set,
        Selection::InlineFragment(fragment) => &fragment.selection_set,
        Selection::FragmentSpread(_) => &[],
    }
}

fn merge_set(set: &mut Vec<Selection>) {
    let mut seen = Seen::default();
    let mut merged: Vec<Selection> = Vec::with_capacity(set.len());
    for selection in set.drain(..) {
        let before = seen.before(merged.len(), &selection);
        match (before.and_then(|at| merged.get_mut(at)), &selection) {
            (None, _) => merged.push(selection),
            (Some(Selection::Field(first)), Selection::Field(field)) => {
                if is_same(first, field) {
                    let more = field.selection_set.iter().cloned();
                    first.make_mut().selection_set.extend(more);
                } else {
                    merged.push(selection);
                }
            }
            (Some(_), _) => {}
        }
    }
    for selection in &mut merged {
        if !has_some(below(selection)) {
            continue;
        }
        match selection {
            Selection::Field(field) => merge_set(&mut field.make_mut().selection_set),
            Selection::InlineFragment(fragment) => {
                merge_set(&mut fragment.make_mut().selection_set);
            }
            Selection::FragmentSpread(_) => {}
        }
    }
    *set = merged;
}

/// What has occurred in a set so far.
#[derive(Default)]
struct Seen {
    /// The index of the first field of each key.
    fields: HashMap<Name, usize>,
    fragments: HashSet<Selection>,
}

impl Seen {
    /// The index of the first field with the same key, or any index if the same fragment occurred before. Otherwise
    /// returns `None` and notes this selection at index `at`.
    fn before(&mut self, at: usize, selection: &Selection) -> Option<usize> {
        let Selection::Field(field) = selection else {
            return (!self.fragments.insert(selection.clone())).then_some(0);
        };
        let key = field.response_name();
        if let Some(before) = self.fields.get(key) {
            return Some(*before);
        }
        self.fields.insert(key.clone(), at);
        None
    }
}

/// Whether two fields share one answer. A leaf and an object never do, whatever their names are.
fn is_same(one: &Field, other: &Field) -> bool {
    one.name == other.name
        && one.arguments == other.arguments
        && one.directives == other.directives
        && one.selection_set.is_empty() == other.selection_set.is_empty()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn merged(document: &str) -> Option<String> {
        let mut document = Document::parse(document, "document").unwrap();
        merge(&mut document).then(|| document.serialize().no_indent().to_string())
    }

    #[test]
    fn what_is_the_same_becomes_one_and_the_order_of_the_answer_stays() {
        for (document, one) in [
            ("{a b a c a}", "{ a b c }"),
            ("{o(x:1){a b} p o(x:1){c a}}", "{ o(x: 1) { a b c } p }"),
            ("{x:a{b} x:a{b}}", "{ x: a { b } }"),
            (
                "{...on T{a a} b ...on T{a a} ...f ...f}",
                "{ ... on T { a } b ...f }",
            ),
            (
                "{a} fragment f on T{a{b} a{b}}",
                "{ a } fragment f on T { a { b } }",
            ),
            ("{o{o{o{a}}} o{o{o{a b}}}}", "{ o { o { o { a b } } } }"),
        ] {
            assert_eq!(merged(document).as_deref(), Some(one), "{document}");
        }
    }

    #[test]
    fn what_differs_stays_as_it_is() {
        for document in [
            "{a b c}",
            "{a(x:1) a(x:2)}",
            "{x:a x:b}",
            "{a @skip(if:true) a}",
            "{a a{b}}",
            "{...on T{a} ...on U{a} ...on T{b}}",
            "query A{a} query B{a}",
        ] {
            assert_eq!(merged(document), None, "{document}");
        }
    }

    #[test]
    fn thousands_of_one_field_become_one_in_a_document_of_many_sets() {
        let fields = "id revision ".repeat(1_000);
        let document = format!("{{{}}}", format!("o{{{fields}}} ").repeat(3));
        assert_eq!(merged(&document).unwrap(), "{ o { id revision } }");
    }
}
