//! Moves conditions on `__typename` to a fragment.
//!
//! The GraphQL library of a service does not look for variables in these conditions. It reports a variable that is used
//! nowhere else as unused.

use std::mem;

use apollo_compiler::Node;
use apollo_compiler::executable::{InlineFragment, Selection, SelectionSet};

/// Puts a fragment around each `__typename` that has directives, and moves them to it. Returns whether there were any.
pub(super) fn with_conditions_around(set: &mut SelectionSet) -> bool {
    let mut is_changed = false;
    for selection in &mut set.selections {
        match selection {
            Selection::Field(field) if field.name == "__typename" => {
                if field.directives.0.is_empty() {
                    continue;
                }
                let mut inside = (**field).clone();
                let mut around = InlineFragment::without_type_condition(set.ty.clone());
                around.directives = mem::take(&mut inside.directives);
                around.selection_set.push(inside);
                *selection = Selection::InlineFragment(Node::new(around));
                is_changed = true;
            }
            Selection::Field(field) if field.selection_set.selections.is_empty() => {}
            Selection::Field(field) => {
                is_changed |= with_conditions_around(&mut field.make_mut().selection_set);
            }
            Selection::InlineFragment(fragment) => {
                is_changed |= with_conditions_around(&mut fragment.make_mut().selection_set);
            }
            Selection::FragmentSpread(_) => {}
        }
    }
    is_changed
}
