//! Changes to an operation that put it into a form which the libraries behind carry out as the specification says.

use std::collections::HashSet;

use apollo_compiler::ast::Type;
use apollo_compiler::executable::{
    Argument, ExecutableDocument, Operation, Selection, SelectionSet, Value,
};
use apollo_compiler::schema::{ExtendedType, InputValueDefinition};
use apollo_compiler::{Name, Node};

use super::aliases;
use super::schema::{GraphSchema, Scalar};
use super::variables::is_decimal;

/// The key of a field that keeps a selection from coming out empty; it is taken out of answers ([`without_fillers`]).
const FILLER: &str = "tandemSelectionFiller";

/// A document of one operation, and the fragments that it uses.
pub(super) struct Rewriting<'a> {
    schema: &'a GraphSchema,
    document: ExecutableDocument,
    operation: Operation,
    is_changed: bool,
}

impl<'a> Rewriting<'a> {
    /// Of an operation of a valid document.
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

    /// Gives the operation another name.
    pub(super) fn rename(&mut self, name: &str) {
        if let Ok(name) = Name::new(name) {
            self.operation.name = Some(name);
            self.is_changed = true;
        }
    }

    /// Gives aliases names of their own that cover what a router asks for by itself. Answers whether there was one.
    pub(super) fn uncovered_keys(&mut self) -> bool {
        let mut is_changed = aliases::rename(self.schema, &mut self.operation.selection_set);
        for fragment in self.document.fragments.values_mut() {
            let mut set = fragment.selection_set.clone();
            if aliases::rename(self.schema, &mut set) {
                fragment.make_mut().selection_set = set;
                is_changed = true;
            }
        }
        self.is_changed |= is_changed;
        is_changed
    }

    /// Writes decimal numbers as strings, which keep every digit.
    pub(super) fn exact_decimals(&mut self) {
        let schema = self.schema;
        self.each_argument(&mut |arguments, definitions| {
            let mut is_changed = false;
            for argument in arguments {
                let definition = definitions.iter().find(|known| known.name == argument.name);
                if let Some(definition) = definition
                    && holds_number(schema, &argument.value, &definition.ty)
                {
                    exact(schema, &mut argument.make_mut().value, &definition.ty);
                    is_changed = true;
                }
            }
            is_changed
        });
    }

    /// Leaves out arguments and input fields whose value is one of these variables, which the request does not bring: their
    /// defaults count (GraphQL, Coercing Field Arguments).
    pub(super) fn without_variables(&mut self, absent: &HashSet<&str>) {
        let schema = self.schema;
        self.each_argument(&mut |arguments, definitions| {
            let before = arguments.len();
            arguments.retain(|argument| {
                let has_default = definitions
                    .iter()
                    .any(|known| known.name == argument.name && known.default_value.is_some());
                !(has_default && is_one_of(&argument.value, absent))
            });
            let mut is_changed = arguments.len() != before;
            for argument in arguments {
                let definition = definitions.iter().find(|known| known.name == argument.name);
                if let Some(definition) = definition {
                    is_changed |= left_out(
                        schema,
                        &mut argument.make_mut().value,
                        &definition.ty,
                        absent,
                    );
                }
            }
            is_changed
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

    /// Adds a field to selections that may come out empty, which executors take for no object at all. Answers whether there
    /// was one.
    pub(super) fn filled_selections(&mut self) -> bool {
        // A subscription has one field at its root, always.
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
        self.is_changed |= arguments(&mut self.operation.selection_set, change);
        for fragment in self.document.fragments.values_mut() {
            let mut set = fragment.selection_set.clone();
            if arguments(&mut set, change) {
                fragment.make_mut().selection_set = set;
                self.is_changed = true;
            }
        }
    }

    /// The document, if anything in it was changed.
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

/// Names of the fragments that a selection uses, directly or through others.
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

/// Whether a number stands where a decimal is expected.
fn holds_number(schema: &GraphSchema, value: &Value, ty: &Type) -> bool {
    if !schema.is_noted(ty) {
        return false;
    }
    match value {
        Value::Int(_) | Value::Float(_) => {
            GraphSchema::scalar(ty.inner_named_type()) == Some(Scalar::Decimal)
        }
        Value::List(elements) => elements
            .iter()
            .any(|one| holds_number(schema, one, ty.item_type())),
        Value::Object(fields) => fields.iter().any(|(name, one)| {
            schema
                .input_field(ty.inner_named_type(), name)
                .is_some_and(|field| holds_number(schema, one, &field.ty))
        }),
        _ => false,
    }
}

fn exact(schema: &GraphSchema, value: &mut Node<Value>, ty: &Type) {
    if !holds_number(schema, value, ty) {
        return;
    }
    match value.make_mut() {
        Value::List(elements) => {
            elements
                .iter_mut()
                .for_each(|one| exact(schema, one, ty.item_type()));
        }
        Value::Object(fields) => {
            for (name, one) in fields {
                if let Some(field) = schema.input_field(ty.inner_named_type(), name) {
                    exact(schema, one, &field.ty);
                }
            }
        }
        number => {
            let written = number.to_string();
            if is_decimal(&written) {
                *number = Value::String(written);
            }
        }
    }
}

fn is_one_of(value: &Value, absent: &HashSet<&str>) -> bool {
    value
        .as_variable()
        .is_some_and(|name| absent.contains(name.as_str()))
}

/// Changes a field's arguments, given those that the schema defines; answers whether it did.
type ChangeArguments<'a> =
    &'a mut dyn FnMut(&mut Vec<Node<Argument>>, &[Node<InputValueDefinition>]) -> bool;

/// Leaves fields out of an input object; answers whether one was.
fn left_out(
    schema: &GraphSchema,
    value: &mut Node<Value>,
    ty: &Type,
    absent: &HashSet<&str>,
) -> bool {
    if !matches!(value.as_ref(), Value::List(_) | Value::Object(_)) {
        return false;
    }
    match value.make_mut() {
        Value::List(elements) => {
            let mut changed = false;
            for one in elements {
                changed |= left_out(schema, one, ty.item_type(), absent);
            }
            changed
        }
        Value::Object(fields) => {
            let ty = ty.inner_named_type();
            let before = fields.len();
            fields.retain(|(name, one)| {
                let has_default = schema
                    .input_field(ty, name)
                    .is_some_and(|field| field.default_value.is_some());
                !(has_default && is_one_of(one, absent))
            });
            let mut is_changed = fields.len() != before;
            for (name, one) in fields {
                if let Some(field) = schema.input_field(ty, name) {
                    is_changed |= left_out(schema, one, &field.ty, absent);
                }
            }
            is_changed
        }
        _ => false,
    }
}

/// Variables that stand where a default would count if they were not given.
pub(super) fn defaulted(
    schema: &GraphSchema,
    document: &ExecutableDocument,
    operation: &Operation,
) -> HashSet<String> {
    let mut found = HashSet::new();
    let mut sets = vec![&operation.selection_set];
    sets.extend(
        document
            .fragments
            .values()
            .map(|fragment| &fragment.selection_set),
    );
    while let Some(set) = sets.pop() {
        for selection in &set.selections {
            match selection {
                Selection::Field(field) => {
                    sets.push(&field.selection_set);
                    for argument in &field.arguments {
                        let known = field.definition.argument_by_name(&argument.name);
                        if let Some(known) = known {
                            let has_default = known.default_value.is_some();
                            defaulted_in(
                                schema,
                                &argument.value,
                                &known.ty,
                                has_default,
                                &mut found,
                            );
                        }
                    }
                }
                Selection::InlineFragment(fragment) => sets.push(&fragment.selection_set),
                Selection::FragmentSpread(_) => {}
            }
        }
    }
    found
}

fn defaulted_in(
    schema: &GraphSchema,
    value: &Value,
    ty: &Type,
    has_default: bool,
    found: &mut HashSet<String>,
) {
    match value {
        Value::Variable(name) if has_default => {
            found.insert(name.to_string());
        }
        Value::List(elements) => {
            for one in elements {
                defaulted_in(schema, one, ty.item_type(), false, found);
            }
        }
        Value::Object(fields) => {
            for (name, one) in fields {
                if let Some(field) = schema.input_field(ty.inner_named_type(), name) {
                    let has_default = field.default_value.is_some();
                    defaulted_in(schema, one, &field.ty, has_default, found);
                }
            }
        }
        _ => {}
    }
}

/// Names of the variables that a selection uses itself, without its fragments.
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

/// Whether a selection is there whatever the variables say.
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

/// Fills a set, and those below it; answers whether one needed it.
fn fill(schema: &GraphSchema, document: &ExecutableDocument, set: &mut SelectionSet) -> bool {
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

fn fill_below(schema: &GraphSchema, document: &ExecutableDocument, set: &mut SelectionSet) -> bool {
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

/// An answer without the fields of [`Rewriting::filled_selections`]. Quotes inside of JSON's strings are escaped, so the key in its
/// quotes stands nowhere else.
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
    #![allow(clippy::unwrap_used)]
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
        let written = rewritten(document, |rewriting| rewriting.exact_decimals()).unwrap();
        assert!(
            written.contains(r#"price: "123456789012.12345678""#)
                && written.contains("quantity: 1")
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
