//! Finds the fragments and variables that a selection refers to.

use std::collections::HashSet;

use apollo_compiler::Name;
use apollo_compiler::executable::{ExecutableDocument, Selection, SelectionSet, Value};

/// Names of the fragments that a selection uses, directly or through other fragments.
pub(super) fn spreads(document: &ExecutableDocument, set: &SelectionSet, used: &mut HashSet<Name>) {
    for selection in &set.selections {
        match selection {
            Selection::Field(field) => spreads(document, &field.selection_set, used),
            Selection::InlineFragment(fragment) => spreads(document, &fragment.selection_set, used),
            Selection::FragmentSpread(spread) => {
                if used.insert(spread.fragment_name.clone())
                    && let Some(fragment) = spread.fragment_def(document)
                {
                    spreads(document, &fragment.selection_set, used);
                }
            }
        }
    }
}

/// Names of the variables that a selection uses itself, not through fragments.
pub(super) fn variables_of<'a>(set: &'a SelectionSet, used: &mut HashSet<&'a str>) {
    fn of_value<'a>(value: &'a Value, used: &mut HashSet<&'a str>) {
        match value {
            Value::Variable(name) => {
                used.insert(name.as_str());
            }
            Value::List(elements) => elements.iter().for_each(|one| of_value(one, used)),
            Value::Object(fields) => fields.iter().for_each(|(_, one)| of_value(one, used)),
            _ => {}
        }
    }
    for selection in &set.selections {
        for directive in selection.directives() {
            directive
                .arguments
                .iter()
                .for_each(|argument| of_value(&argument.value, used));
        }
        match selection {
            Selection::Field(field) => {
                field
                    .arguments
                    .iter()
                    .for_each(|argument| of_value(&argument.value, used));
                variables_of(&field.selection_set, used);
            }
            Selection::InlineFragment(fragment) => variables_of(&fragment.selection_set, used),
            Selection::FragmentSpread(_) => {}
        }
    }
}
