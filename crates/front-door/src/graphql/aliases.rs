//! Renames aliases that collide with fields which a router adds to a selection: keys and `__typename`. A router would
//! confuse the two. The client's alias is restored in the answer.

use apollo_compiler::Name;
use apollo_compiler::executable::{Selection, SelectionSet};

use super::schema::GraphSchema;

/// The prefix of the names that the gateway gives to aliases.
const BEGIN: &str = "tandemAlias_";

/// The generated name that replaces an alias, if the alias must be renamed.
pub(super) fn handed_on(schema: &GraphSchema, alias: &str) -> Option<String> {
    schema.is_key(alias).then(|| format!("{BEGIN}{alias}"))
}

/// Renames such aliases in a selection set and below it. Returns whether it renamed any.
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

/// Whether a document contains names that [`restored`] would take for generated ones.
pub(super) fn takes_names(document: &str) -> bool {
    document.contains(BEGIN)
}

/// Restores the client's aliases in an answer: as keys of objects, and in the paths of errors.
///
/// JSON escapes quotes inside strings, so a key in quotes cannot appear inside another string.
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
        // In escaped text inside a string, the closing quote follows a backslash.
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

/// Whether the next value is an element of an error's path, which is a list without nested lists.
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
