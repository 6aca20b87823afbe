//! Rewrites an operation so that the libraries of the inner server execute it as the specification says.

use std::collections::HashSet;

use apollo_compiler::executable::{
    Argument, ExecutableDocument, Operation, Selection, SelectionSet,
};
use apollo_compiler::schema::InputValueDefinition;
use apollo_compiler::{Name, Node};

use super::fillers::{fill, fill_below};
use super::references::{spreads, variables_of};
use super::schema::GraphSchema;
use super::{absent_variables, aliases, numbers, typenames};

/// A document with one operation and the fragments that it uses.
pub(super) struct Rewriting<'a> {
    schema: &'a GraphSchema,
    document: ExecutableDocument,
    operation: Operation,
    is_changed: bool,
}

impl<'a> Rewriting<'a> {
    /// Starts with an operation of a valid document.
    pub(super) fn of(
        schema: &'a GraphSchema,
        document: &ExecutableDocument,
        operation: &Operation,
    ) -> Self {
        Self {
            schema,
            document: document.clone(),
            operation: operation.clone(),
            is_changed: false,
        }
    }

    /// Renames the operation.
    pub(super) fn rename(&mut self, name: &str) {
        if let Ok(name) = Name::new(name) {
            self.operation.name = Some(name);
            self.is_changed = true;
        }
    }

    /// Renames aliases that collide with fields which a router adds. Returns whether there were any.
    pub(super) fn uncovered_keys(&mut self) -> bool {
        let schema = self.schema;
        self.each_set(&mut |set| aliases::rename(schema, set))
    }

    /// Moves the conditions of `__typename` to a fragment around it.
    pub(super) fn conditions_around_typenames(&mut self) {
        self.each_set(&mut typenames::with_conditions_around);
    }

    /// Turns numbers that would lose digits into strings, in arguments and in the defaults of variables.
    pub(super) fn exact_numbers(&mut self) {
        let schema = self.schema;
        self.each_argument(&mut |arguments, definitions| {
            numbers::write_exactly(schema, arguments, definitions)
        });
        self.is_changed |= numbers::write_defaults_exactly(schema, &mut self.operation.variables);
    }

    /// Removes arguments and input fields whose value is one of these variables, which the request does not provide.
    /// Their defaults count then (GraphQL, Coercing Field Arguments).
    pub(super) fn without_variables(&mut self, absent: &HashSet<&str>) {
        let schema = self.schema;
        self.each_argument(&mut |arguments, definitions| {
            absent_variables::leave_to_defaults(schema, arguments, definitions, absent)
        });
        let mut used = HashSet::new();
        variables_of(&self.operation.selection_set, &mut used);
        for fragment in self.document.fragments.values() {
            variables_of(&fragment.selection_set, &mut used);
        }
        self.operation.variables.retain(|variable| {
            used.contains(variable.name.as_str()) || !absent.contains(variable.name.as_str())
        });
    }

    /// Adds a field to selections that may turn out empty, because executors do not answer those as an object. Returns
    /// whether it added any.
    pub(super) fn filled_selections(&mut self) -> bool {
        // The root of a subscription must have exactly one field.
        let is_filled = if self.operation.is_subscription() {
            let mut selections = std::mem::take(&mut self.operation.selection_set.selections);
            let mut is_filled = false;
            for selection in &mut selections {
                if let Selection::Field(field) = selection {
                    is_filled |= fill(
                        self.schema,
                        &self.document,
                        &mut field.make_mut().selection_set,
                    );
                }
            }
            self.operation.selection_set.selections = selections;
            is_filled
        } else {
            fill(
                self.schema,
                &self.document,
                &mut self.operation.selection_set,
            )
        };
        let document = self.document.clone();
        let mut in_fragments = false;
        for fragment in self.document.fragments.values_mut() {
            let mut set = fragment.selection_set.clone();
            if fill_below(self.schema, &document, &mut set) {
                fragment.make_mut().selection_set = set;
                in_fragments = true;
            }
        }
        self.is_changed |= is_filled || in_fragments;
        is_filled || in_fragments
    }

    fn each_argument(&mut self, change: ChangeArguments<'_>) {
        self.each_set(&mut |set| arguments(set, change));
    }

    /// Changes the selection sets of the operation and of the fragments. Returns whether any was changed.
    fn each_set(&mut self, change: &mut dyn FnMut(&mut SelectionSet) -> bool) -> bool {
        let mut is_changed = change(&mut self.operation.selection_set);
        for fragment in self.document.fragments.values_mut() {
            let mut set = fragment.selection_set.clone();
            if change(&mut set) {
                fragment.make_mut().selection_set = set;
                is_changed = true;
            }
        }
        self.is_changed |= is_changed;
        is_changed
    }

    /// Writes the document, if anything in it was changed.
    pub(super) fn written(self) -> Option<String> {
        if !self.is_changed {
            return None;
        }
        let mut used = HashSet::new();
        spreads(&self.document, &self.operation.selection_set, &mut used);
        let mut document = ExecutableDocument::new();
        for (name, fragment) in &self.document.fragments {
            if used.contains(name) {
                document.fragments.insert(name.clone(), fragment.clone());
            }
        }
        document.operations.insert(self.operation);
        Some(document.serialize().no_indent().to_string())
    }
}

/// Changes a field's arguments, given those that the schema defines. Returns whether it changed any.
type ChangeArguments<'a> =
    &'a mut dyn FnMut(&mut Vec<Node<Argument>>, &[Node<InputValueDefinition>]) -> bool;

fn arguments(set: &mut SelectionSet, change: ChangeArguments<'_>) -> bool {
    let mut is_changed = false;
    for selection in &mut set.selections {
        match selection {
            Selection::Field(field) => {
                let field = field.make_mut();
                if !field.arguments.is_empty() {
                    let definition = field.definition.clone();
                    is_changed |= change(&mut field.arguments, &definition.arguments);
                }
                is_changed |= arguments(&mut field.selection_set, change);
            }
            Selection::InlineFragment(fragment) => {
                is_changed |= arguments(&mut fragment.make_mut().selection_set, change);
            }
            Selection::FragmentSpread(_) => {}
        }
    }
    is_changed
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::fillers::FILLER;
    use super::*;

    const SDL: &str = include_str!("../../../../schema/orders.graphql");

    fn rewritten(document: &str, change: impl FnOnce(&mut Rewriting<'_>)) -> Option<String> {
        let schema = GraphSchema::from_sdl(SDL).unwrap();
        let document =
            ExecutableDocument::parse_and_validate(schema.valid(), document, "document").unwrap();
        let operation = document.operations.iter().next().unwrap();
        let mut rewriting = Rewriting::of(&schema, &document, operation);
        change(&mut rewriting);
        let written = rewriting.written()?;
        ExecutableDocument::parse_and_validate(schema.valid(), &written, "rewritten").unwrap();
        Some(written.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn an_argument_whose_variable_is_not_given_is_left_out_where_it_has_a_default() {
        let document = "query($n:Int,$s:OrderStatus){orders(first:$n,status:$s){nodes{changes(first:$n){nodes{revision}}}}}";
        let written = rewritten(document, |rewriting| {
            rewriting.without_variables(&HashSet::from(["n", "s"]));
        });
        assert_eq!(
            written.unwrap(),
            "query($s: OrderStatus) { orders(status: $s) { nodes { changes { nodes { revision } } } } }"
        );
        let nested = "mutation($to:AddressType,$id:ID!){placeOrder(input:{customerId:$id,items:[],shipTo:$to}){order{id}}}";
        let written = rewritten(nested, |rewriting| {
            rewriting.without_variables(&HashSet::from(["to"]));
        });
        assert!(written.unwrap().contains("{customerId: $id, items: []}"));
    }

    #[test]
    fn a_decimal_number_is_written_as_a_string() {
        let document = r#"mutation{placeOrder(input:{customerId:"1",items:[{quantity:1,product:{guid:"g",title:"t",price:123456789012.12345678}}]}){order{id}}}"#;
        let written = rewritten(document, |rewriting| rewriting.exact_numbers()).unwrap();
        assert!(
            written.contains(r#"price: "123456789012.12345678""#)
                && written.contains("quantity: 1")
        );
    }

    #[test]
    fn a_number_in_the_default_of_a_variable_keeps_every_digit_too() {
        let document = r#"mutation($p:Decimal=123456789012.12345678,$i:PlaceOrderInput={customerId:99999999999999999999,items:[{quantity:1,product:{guid:"g",title:"t",price:99999999999.99999999}}]}){a:placeOrder(input:$i){order{id}} b:placeOrder(input:{customerId:7,items:[{quantity:-0,product:{guid:"g",title:"t",price:$p}}]}){order{id}}}"#;
        let written = rewritten(document, |rewriting| rewriting.exact_numbers()).unwrap();
        for kept in [
            r#"$p: Decimal = "123456789012.12345678""#,
            r#"customerId: "99999999999999999999""#,
            r#"price: "99999999999.99999999""#,
            "customerId: 7",
            "quantity: 0",
        ] {
            assert!(written.contains(kept), "{kept}: {written}");
        }
    }

    #[test]
    fn the_conditions_of_a_typename_stand_around_it() {
        let document = "query($b:Boolean!){order(id:1){x:__typename@include(if:$b)@skip(if:false) id@skip(if:$b) ...o}} fragment o on Order{...{__typename@skip(if:$b)} __typename}";
        let written = rewritten(document, |rewriting| {
            rewriting.conditions_around_typenames()
        })
        .unwrap();
        for kept in [
            "... @include(if: $b) @skip(if: false) { x: __typename }",
            "id @skip(if: $b)",
            "... { ... @skip(if: $b) { __typename } } __typename",
        ] {
            assert!(written.contains(kept), "{kept}: {written}");
        }
        let plain = "query($b:Boolean!){order(id:1){__typename id@skip(if:$b)}}";
        assert_eq!(
            rewritten(plain, |rewriting| rewriting.conditions_around_typenames()),
            None
        );
    }

    #[test]
    fn a_selection_that_may_come_out_empty_is_filled() {
        for (document, fillers) in [
            ("{orders(first:1){nodes{id@include(if:false)}}}", 1),
            ("query($a:Boolean!){orders@skip(if:$a){nodes{id}}}", 1),
            (
                "query($a:Boolean!){orders{nodes{...x}}} fragment x on Order{id@skip(if:$a) customer{...@include(if:$a){id}}}",
                1,
            ),
            ("{orders{nodes{id ...@include(if:false){total}}}}", 0),
            ("{order(id:1){...@include(if:true){...{id}}}}", 1),
        ] {
            let written = rewritten(document, |rewriting| {
                assert_eq!(rewriting.filled_selections(), fillers > 0);
            });
            assert_eq!(
                written.unwrap_or_default().matches(FILLER).count(),
                fillers,
                "{document}"
            );
        }
    }
}
