//! The cost of an operation: the most fields that its answer can have.
//!
//! A list multiplies the fields below it by its length. The length of a connection's list is its argument `first`, in
//! the document or in a variable. The lengths of the lists in an introspection come from the schema.

use std::collections::HashMap;

use apollo_compiler::Name;
use apollo_compiler::executable::{
    ExecutableDocument, Field, FragmentSpread, Operation, Selection, SelectionSet, Value,
};

use super::schema::GraphSchema;

/// The assumed length of a list that has no argument for it, such as the items of an order.
const PLAIN_LIST: u64 = 5;
/// The longest page that services return. They refuse more, with a message about `first`.
const LONGEST_PAGE: u64 = 100;
/// A mutation writes, so it counts as this many fields.
const MUTATION: u64 = 10;
/// The text of a whole schema, which a router asks a service for, counts as this many fields.
const SCHEMA_TEXT: u64 = 1_000;

/// How often the fields below occur.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Factor {
    Times(u64),
    /// As often as the value of this variable.
    Variable {
        name: String,
        otherwise: u64,
    },
    /// Once for each element of this variable.
    Length {
        name: String,
        otherwise: u64,
    },
}

#[derive(Debug)]
struct Part {
    own: u64,
    factor: Factor,
    /// Indexes of parts before this one.
    below: Vec<usize>,
}

/// The cost of an operation, for any values of its variables.
#[derive(Debug)]
pub(super) struct Cost {
    /// Each part comes after the parts below it, so one pass computes the sum.
    parts: Vec<Part>,
    of_all_variables: Option<u64>,
}

/// Reads what the cost needs from the values of variables.
pub(super) trait Values {
    /// The value, if it is a whole number.
    fn integer(&self, variable: &str) -> Option<i64>;
    /// The number of elements, if the value is a list.
    fn length(&self, variable: &str) -> Option<u64>;
}

impl Cost {
    /// Computes the cost of an operation of a valid document.
    pub(super) fn of(
        schema: &GraphSchema,
        document: &ExecutableDocument,
        operation: &Operation,
    ) -> Self {
        let mut builder = Builder {
            schema,
            document,
            operation,
            parts: Vec::new(),
            known: HashMap::new(),
        };
        let below = builder.set(&operation.selection_set, None);
        let roots = operation.selection_set.selections.len() as u64;
        builder.parts.push(Part {
            own: if operation.is_mutation() {
                MUTATION.saturating_mul(roots)
            } else {
                0
            },
            factor: Factor::Times(1),
            below,
        });
        let mut cost = Self {
            parts: builder.parts,
            of_all_variables: None,
        };
        if cost
            .parts
            .iter()
            .all(|part| matches!(part.factor, Factor::Times(_)))
        {
            cost.of_all_variables = Some(cost.sum(None));
            cost.parts = Vec::new();
        }
        cost
    }

    /// The cost, if it does not depend on variables.
    pub(super) fn fixed(&self) -> Option<u64> {
        self.of_all_variables
    }

    /// The cost with these variables.
    pub(super) fn with(&self, values: &dyn Values) -> u64 {
        self.of_all_variables
            .unwrap_or_else(|| self.sum(Some(values)))
    }

    fn sum(&self, values: Option<&dyn Values>) -> u64 {
        let mut sums: Vec<u64> = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let below = part
                .below
                .iter()
                .filter_map(|at| sums.get(*at))
                .fold(0_u64, |sum, one| sum.saturating_add(*one));
            let times = match &part.factor {
                Factor::Times(times) => *times,
                Factor::Variable { name, otherwise } => values
                    .and_then(|values| values.integer(name))
                    .map_or(*otherwise, page),
                Factor::Length { name, otherwise } => values
                    .and_then(|values| values.length(name))
                    .unwrap_or(*otherwise),
            };
            sums.push(part.own.saturating_add(times.saturating_mul(below)));
        }
        sums.last().copied().unwrap_or_default()
    }
}

fn page(first: i64) -> u64 {
    u64::try_from(first).unwrap_or_default().min(LONGEST_PAGE)
}

struct Builder<'a> {
    schema: &'a GraphSchema,
    document: &'a ExecutableDocument,
    operation: &'a Operation,
    parts: Vec<Part>,
    /// Fragments, once for each length of the list in which they occur.
    known: HashMap<(Name, Option<Factor>), usize>,
}

impl Builder<'_> {
    /// The parts of a selection set. `page` is the length of the lists if the set belongs to a connection.
    fn set(&mut self, set: &SelectionSet, page: Option<&Factor>) -> Vec<usize> {
        let mut parts = Vec::with_capacity(set.selections.len());
        for selection in &set.selections {
            match selection {
                Selection::Field(field) => parts.push(self.field(field, page)),
                Selection::InlineFragment(fragment) => {
                    parts.extend(self.set(&fragment.selection_set, page));
                }
                Selection::FragmentSpread(spread) => parts.extend(self.spread(spread, page)),
            }
        }
        parts
    }

    fn spread(&mut self, spread: &FragmentSpread, page: Option<&Factor>) -> Option<usize> {
        let key = (spread.fragment_name.clone(), page.cloned());
        if let Some(known) = self.known.get(&key) {
            return Some(*known);
        }
        let fragment = spread.fragment_def(self.document)?;
        let below = self.set(&fragment.selection_set, page);
        let at = self.push(0, Factor::Times(1), below);
        self.known.insert(key, at);
        Some(at)
    }

    fn field(&mut self, field: &Field, page: Option<&Factor>) -> usize {
        let own_page = self.page_of(field);
        let factor = if own_page.is_some() || !field.definition.ty.is_list() {
            // A connection is one object. Only its lists are multiplied, not its other fields.
            Factor::Times(1)
        } else if field.selection_set.ty.starts_with("__") {
            Factor::Times(self.schema.described().length(&field.name))
        } else if let Some(length) = self.length_of(field) {
            length
        } else {
            page.cloned().unwrap_or(Factor::Times(PLAIN_LIST))
        };
        let below = self.set(&field.selection_set, own_page.as_ref());
        let own = if field.name == "sdl" { SCHEMA_TEXT } else { 1 };
        self.push(own, factor, below)
    }

    fn push(&mut self, own: u64, factor: Factor, below: Vec<usize>) -> usize {
        self.parts.push(Part { own, factor, below });
        self.parts.len() - 1
    }

    /// The length of a connection's lists, if this field is a connection.
    fn page_of(&self, field: &Field) -> Option<Factor> {
        let definition = field.definition.argument_by_name("first")?;
        let default = definition.default_value.as_deref().and_then(integer);
        let otherwise = default.map_or(LONGEST_PAGE, page);
        let given = field.specified_argument_by_name("first");
        Some(match given.map(AsRef::as_ref) {
            Some(Value::Variable(name)) => Factor::Variable {
                name: name.to_string(),
                otherwise: self.default_of(name).unwrap_or(otherwise),
            },
            Some(value) => Factor::Times(integer(value).map_or(otherwise, page)),
            None => Factor::Times(otherwise),
        })
    }

    fn default_of(&self, variable: &Name) -> Option<u64> {
        self.value_without(variable).and_then(integer).map(page)
    }

    /// The value of a variable that the request does not provide.
    fn value_without(&self, variable: &Name) -> Option<&Value> {
        let mut variables = self.operation.variables.iter();
        let definition = variables.find(|known| known.name == *variable)?;
        definition.default_value.as_deref()
    }

    /// The length of the list of entities that a router asks for.
    fn length_of(&self, field: &Field) -> Option<Factor> {
        if field.name != "_entities" {
            return None;
        }
        Some(
            match field
                .specified_argument_by_name("representations")?
                .as_ref()
            {
                Value::Variable(name) => Factor::Length {
                    name: name.to_string(),
                    otherwise: match self.value_without(name) {
                        Some(Value::List(elements)) => elements.len() as u64,
                        _ => 1,
                    },
                },
                Value::List(elements) => Factor::Times(elements.len() as u64),
                _ => Factor::Times(1),
            },
        )
    }
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Int(written) => Some(written.as_str().parse().unwrap_or(i64::MAX)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashMap;

    use super::super::schema::GraphSchema;
    use super::*;

    struct Given(HashMap<&'static str, i64>);

    impl Values for Given {
        fn integer(&self, variable: &str) -> Option<i64> {
            self.0.get(variable).copied()
        }
        fn length(&self, variable: &str) -> Option<u64> {
            self.integer(variable)
                .map(|length| u64::try_from(length).unwrap())
        }
    }

    fn cost_on(sdl: &str, document: &str, variables: &[(&'static str, i64)]) -> u64 {
        let schema = GraphSchema::from_sdl(sdl).unwrap();
        let document =
            ExecutableDocument::parse_and_validate(schema.valid(), document, "document").unwrap();
        let operation = document.operations.iter().next().unwrap();
        Cost::of(&schema, &document, operation).with(&Given(variables.iter().copied().collect()))
    }

    fn cost(document: &str, variables: &[(&'static str, i64)]) -> u64 {
        cost_on(
            include_str!("../../../../schema/supergraph.graphql"),
            document,
            variables,
        )
    }

    #[test]
    fn a_page_multiplies_its_nodes_and_not_what_else_a_connection_has() {
        assert_eq!(cost("{orders(first:7){nodes{id}}}", &[]), 2 + 7);
        assert_eq!(
            cost(
                "{orders(first:7){nodes{id total} pageInfo{endCursor}}}",
                &[]
            ),
            4 + 14
        );
        assert_eq!(
            cost("{orders(first:7){edges{cursor node{id}}}}", &[]),
            2 + 7 * 3
        );
        assert_eq!(cost("{orders{nodes{id}}}", &[]), 2 + 20);
    }

    #[test]
    fn connections_multiply_each_other_also_through_fragments() {
        let nested = "{orders(first:100){nodes{customer{orders(first:100){nodes{id}}}}}}";
        let parts = "{orders(first:100){...o}} fragment o on OrderConnection{nodes{...c}}
            fragment c on Order{customer{orders(first:100){...i}}} fragment i on OrderConnection{nodes{id}}";
        assert!(cost(nested, &[]) > 10_000);
        assert_eq!(cost(parts, &[]), cost(nested, &[]));
    }

    #[test]
    fn a_variable_says_how_long_a_page_is_or_else_its_default_or_the_arguments() {
        let plain = "query($n:Int){orders(first:$n){nodes{id}}}";
        let with_default = "query($n:Int=50){orders(first:$n){nodes{id}}}";
        assert_eq!(cost(plain, &[("n", 30)]), 32);
        assert_eq!(cost(plain, &[]), 22);
        assert_eq!(cost(with_default, &[]), 52);
        assert_eq!(cost(plain, &[("n", i64::MAX)]), 102);
        assert_eq!(cost(plain, &[("n", -1)]), 2);
    }

    #[test]
    fn a_list_without_a_length_counts_as_a_few_and_a_mutation_as_several_fields() {
        assert_eq!(cost("{order(id:1){items{quantity}}}", &[]), 2 + 5);
        assert_eq!(
            cost(
                r#"mutation{a:eraseCustomer(id:1){__typename} b:eraseCustomer(id:2){__typename}}"#,
                &[]
            ),
            24
        );
    }

    #[test]
    fn a_schema_describes_itself_to_tools_and_not_many_times_over() {
        let limit = crate::graphql::DocumentLimits::default().cost;
        let kinds = "{kind name ofType{kind name ofType{kind name ofType{kind name ofType{kind name ofType{kind name ofType{kind name ofType{kind name ofType{kind name ofType{kind name}}}}}}}}}}";
        let input =
            format!("{{name description type{kinds} defaultValue isDeprecated deprecationReason}}");
        let of_tools = format!(
            "__schema{{description queryType{{name kind}} mutationType{{name kind}} subscriptionType{{name kind}}
            types{{kind name description specifiedByURL fields(includeDeprecated:true){{name description args(includeDeprecated:true){input} type{kinds} isDeprecated deprecationReason}}
            inputFields(includeDeprecated:true){input} interfaces{kinds} enumValues(includeDeprecated:true){{name description isDeprecated deprecationReason}} possibleTypes{kinds}}}
            directives{{name description isRepeatable locations args(includeDeprecated:true){input}}}}}"
        );
        let once = cost(&format!("{{{of_tools}}}"), &[]);
        assert!(once > 5_000 && once < limit, "{once}");
        let names: Vec<String> = (0..300).map(|at| format!("a{at}:name")).collect();
        let names = names.join(" ");
        for multiplied in [
            format!(
                "{{a:{of_tools} b:{of_tools} c:{of_tools} d:{of_tools} e:{of_tools} f:{of_tools}}}"
            ),
            format!("{{__schema{{types{{fields{{type{{fields{{{names}}}}}}}}}}}}}"),
            format!(
                "{{a:__schema{{types{{...t}}}} b:__schema{{types{{...t}}}}}} fragment t on __Type{{a:fields{{args{{{names}}}}} b:fields{{args{{{names}}}}} c:fields{{args{{{names}}}}} d:fields{{args{{{names}}}}}}}"
            ),
        ] {
            let cost = cost(&multiplied, &[]);
            assert!(cost > limit, "{cost}: {multiplied}");
        }
    }

    #[test]
    fn the_text_of_a_schema_is_no_small_field() {
        let orders = include_str!("../../../../schema/orders.graphql");
        assert_eq!(cost_on(orders, "{_service{sdl}}", &[]), 1 + SCHEMA_TEXT);
        let often: Vec<String> = (0..200).map(|at| format!("a{at}:sdl")).collect();
        let often = format!("{{_service{{{}}}}}", often.join(" "));
        assert_eq!(cost_on(orders, &often, &[]), 1 + 200 * SCHEMA_TEXT);
    }

    #[test]
    fn entities_count_as_many_as_are_asked_for() {
        let orders = include_str!("../../../../schema/orders.graphql");
        let document = "query($r:[_Any!]!){_entities(representations:$r){...on Customer{orders(first:10){nodes{id}}}}}";
        assert_eq!(cost_on(orders, document, &[("r", 30)]), 1 + 30 * (2 + 10));
        let customer = r#"{__typename:"Customer",id:"1"}"#;
        let many = format!("[{}]", vec![customer; 30].join(","));
        let written = document
            .replace("$r){", &format!("{many}){{"))
            .replace("query($r:[_Any!]!)", "");
        let by_default = document.replace("[_Any!]!", &format!("[_Any!]!={many}"));
        for document in [written, by_default] {
            assert_eq!(
                cost_on(orders, &document, &[]),
                1 + 30 * (2 + 10),
                "{document}"
            );
        }
    }

    #[test]
    fn nothing_overflows() {
        let mut document = "{orders(first:100){nodes{id}}}".to_owned();
        for _ in 0..30 {
            document = format!("{{orders(first:100){{nodes{{customer{document}}}}}}}");
        }
        assert_eq!(cost(&document, &[]), u64::MAX);
    }
}
