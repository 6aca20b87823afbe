//! Renames aliases that collide with fields which a router adds to a selection (keys and `__typename`): it would confuse the two. The client's alias
//! is restored in the answer.

use apollo_compiler::Name;
use apollo_compiler::executable::{Selection, SelectionSet};

use super::schema::GraphSchema;

/// Names of the gateway's own in answers begin so.
const BEGIN: &str = "tandemAlias_";

/// The name under which an alias is handed on, if it has one of its own.
pub(super) fn handed_on(schema: &GraphSchema, alias: &str) -> Option<String> {
    schema.is_key(alias).then(|| format!("{BEGIN}{alias}"))
}

/// Gives such aliases names of their own, in a set and below it; answers whether there was one.
pub(super) fn rename(schema: &GraphSchema, set: &mut SelectionSet) -> bool {
    let mut is_changed = false;
    for selection in &mut set.selections {
        match selection {
            Selection::Field(field) => {
                let covering = field
                    .alias
                    .as_ref()
                    .filter(|alias| **alias != field.name)
                    .and_then(|alias| handed_on(schema, alias))
                    .and_then(|alias| Name::new(&alias).ok());
                if covering.is_none() && field.selection_set.is_empty() {
                    continue;
                }
                let field = field.make_mut();
                if covering.is_some() {
                    field.alias = covering;
                    is_changed = true;
                }
                is_changed |= rename(schema, &mut field.selection_set);
            }
            Selection::InlineFragment(fragment) => {
                is_changed |= rename(schema, &mut fragment.make_mut().selection_set);
            }
            Selection::FragmentSpread(_) => {}
        }
    }
    is_changed
}

/// Whether a document has names that [`restored`] would take for its own.
pub(super) fn takes_names(document: &str) -> bool {
    document.contains(BEGIN)
}

/// An answer with the client's aliases: as keys of objects, and in paths of errors. Quotes inside of JSON's strings are escaped, so
/// a key in its quotes stands nowhere else.
pub(super) fn restored(answer: &str) -> String {
    let begin = format!("\"{BEGIN}");
    let mut written = String::with_capacity(answer.len());
    let mut rest = answer;
    while let Some(at) = rest.find(&begin) {
        let (before, found) = rest.split_at(at);
        written.push_str(before);
        let name = found.get(begin.len()..).unwrap_or_default();
        let Some((name, after)) = name.split_once('"') else {
            rest = found;
            break;
        };
        // The end of an escaped text has a backslash before its quote.
        let is_name = !name.ends_with('\\');
        if is_name && (after.starts_with(':') || is_in_path(&written)) {
            written.push('"');
            written.push_str(name);
            written.push('"');
        } else {
            written.push_str(&begin);
            written.push_str(name);
            written.push('"');
        }
        rest = after;
    }
    written.push_str(rest);
    written
}

/// Whether what comes next is an element of an error's path: a list without lists in it.
fn is_in_path(before: &str) -> bool {
    before
        .rfind("\"path\":[")
        .and_then(|at| before.get(at..))
        .is_some_and(|path| !path.contains(']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_clients_names_as_keys_and_in_paths_and_values_stay() {
        assert_eq!(
            restored(
                r#"{"data":{"c":{"tandemAlias_id":"tandemAlias_id","x":"\"tandemAlias_id\":"}},"errors":[{"path":["c",0,"tandemAlias_id"]}]}"#
            ),
            r#"{"data":{"c":{"id":"tandemAlias_id","x":"\"tandemAlias_id\":"}},"errors":[{"path":["c",0,"id"]}]}"#
        );
        assert_eq!(restored(r#"{"a":1}"#), r#"{"a":1}"#);
        assert_eq!(restored(r#"{"tandemAlias_"#), r#"{"tandemAlias_"#);
    }
}
