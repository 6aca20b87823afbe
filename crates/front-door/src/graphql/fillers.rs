//! Adds a field to selections that may turn out empty, because executors do not answer those as an object. The field is
//! removed from the answer.

use apollo_compiler::Name;
use apollo_compiler::executable::{ExecutableDocument, Selection, SelectionSet};
use apollo_compiler::schema::ExtendedType;

use super::schema::GraphSchema;

/// The key of the added field, which keeps a selection from being empty. [`without_fillers`] removes it from answers.
pub(super) const FILLER: &str = "tandemSelectionFiller";

/// Whether a selection is part of the answer for any values of the variables.
fn is_certain(
    schema: &GraphSchema,
    document: &ExecutableDocument,
    selection: &Selection,
    of: &Name,
) -> bool {
    let directives = selection.directives();
    if directives.has("skip") || directives.has("include") {
        return false;
    }
    let (set, condition) = match selection {
        Selection::Field(_) => return true,
        Selection::InlineFragment(fragment) => {
            (&fragment.selection_set, fragment.type_condition.as_ref())
        }
        Selection::FragmentSpread(spread) => match spread.fragment_def(document) {
            Some(fragment) => (&fragment.selection_set, Some(fragment.type_condition())),
            None => return false,
        },
    };
    let applies = condition
        .is_none_or(|condition| condition == of || schema.valid().is_subtype(condition, of));
    applies
        && set
            .selections
            .iter()
            .any(|selection| is_certain(schema, document, selection, of))
}

/// Adds the field to a selection set and to those below it where needed. Returns whether it added any.
pub(super) fn fill(
    schema: &GraphSchema,
    document: &ExecutableDocument,
    set: &mut SelectionSet,
) -> bool {
    let mut is_filled = fill_below(schema, document, set);
    let ty = set.ty.clone();
    let is_composite = schema.valid().types.get(&ty).is_some_and(|ty| {
        matches!(
            ty,
            ExtendedType::Object(_) | ExtendedType::Interface(_) | ExtendedType::Union(_)
        )
    });
    let may_be_empty = !set
        .selections
        .iter()
        .any(|selection| is_certain(schema, document, selection, &ty));
    if is_composite
        && !set.selections.is_empty()
        && may_be_empty
        && let Ok(field) = set.new_field(schema.valid(), apollo_compiler::name!("__typename"))
        && let Ok(alias) = Name::new(FILLER)
    {
        set.push(field.with_alias(alias));
        is_filled = true;
    }
    is_filled
}

/// Adds the field to the selection sets below a set where needed. Returns whether it added any.
pub(super) fn fill_below(
    schema: &GraphSchema,
    document: &ExecutableDocument,
    set: &mut SelectionSet,
) -> bool {
    let mut is_filled = false;
    for selection in &mut set.selections {
        match selection {
            Selection::Field(field) if !field.selection_set.is_empty() => {
                is_filled |= fill(schema, document, &mut field.make_mut().selection_set);
            }
            Selection::InlineFragment(fragment) => {
                is_filled |= fill_below(schema, document, &mut fragment.make_mut().selection_set);
            }
            _ => {}
        }
    }
    is_filled
}

/// Removes the fields that [`fill`] added from an answer.
///
/// JSON escapes quotes inside strings, so the key in quotes cannot appear inside a string.
pub(super) fn without_fillers(answer: &str) -> String {
    let key = format!("\"{FILLER}\":\"");
    let mut written = String::with_capacity(answer.len());
    let mut rest = answer;
    while let Some(at) = rest.find(&key) {
        let (before, found) = rest.split_at(at);
        let after = found.get(key.len()..).unwrap_or_default();
        let after = after
            .find('"')
            .and_then(|end| after.get(end + 1..))
            .unwrap_or_default();
        match (before.strip_suffix(','), after.strip_prefix(',')) {
            (Some(before), _) => {
                written.push_str(before);
                rest = after;
            }
            (None, Some(after)) => {
                written.push_str(before);
                rest = after;
            }
            (None, None) => {
                written.push_str(before);
                rest = after;
            }
        }
    }
    written.push_str(rest);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fillers_are_taken_out_of_answers_and_nothing_else_is() {
        let filler = format!("\"{FILLER}\":\"Order\"");
        for (answer, left) in [
            (
                format!("{{\"data\":{{\"a\":[{{{filler}}},{{{filler}}}]}}}}"),
                r#"{"data":{"a":[{},{}]}}"#,
            ),
            (format!("{{\"a\":1,{filler},\"b\":2}}"), r#"{"a":1,"b":2}"#),
            (format!("{{{filler},\"b\":2}}"), r#"{"b":2}"#),
            (
                r#"{"a":"\"tandemSelectionFiller\":\"x\""}"#.to_owned(),
                r#"{"a":"\"tandemSelectionFiller\":\"x\""}"#,
            ),
        ] {
            assert_eq!(without_fillers(&answer), left);
        }
    }
}
