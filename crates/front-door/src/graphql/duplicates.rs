//! Merges selections that occur more than once in a set. Validation of overlapping fields compares each pair of them, which takes a tenth of a second
//! for a thousand repetitions of one field.

use std::collections::{HashMap, HashSet};

use apollo_compiler::Name;
use apollo_compiler::ast::{Definition, Document, Field, Selection};

/// Merges fields of a set that are the same (GraphQL, section Field Selection Merging) and drops fragments that came before as they are;
/// answers whether anything was changed. The order of an answer stays. What is not valid stays so.
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

/// Whether there is anything to merge in a set or below it.
fn has_some(set: &[Selection]) -> bool {
    let mut seen = Seen::default();
    set.iter().enumerate().any(|(at, selection)| {
        let is_again = seen.before(at, selection).is_some_and(|before| {
            // Both are fields of one key, or the same fragment.
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

/// What came before in a set.
#[derive(Default)]
struct Seen {
    /// Where the first field of each key stands.
    fields: HashMap<Name, usize>,
    fragments: HashSet<Selection>,
}

impl Seen {
    /// Where the first field of this one's key stands, or anywhere if it is a fragment that came before; otherwise it is noted as the one at `at`.
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

/// Whether one answer is both's: a leaf and an object are not, whatever they are called.
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
