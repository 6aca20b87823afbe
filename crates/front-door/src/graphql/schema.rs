//! The schema for checking documents: what clients of this port see, derived from the SDL of a subgraph or supergraph.

use std::collections::HashSet;
use std::sync::Arc;

use apollo_compiler::ast::{Definition, DirectiveList, FieldDefinition, InputValueDefinition};
use apollo_compiler::schema::{ExtendedType, Schema};
use apollo_compiler::validation::Valid;
use apollo_compiler::{ExecutableDocument, Node, ast};

/// Directives that matter to clients. The others tell routers how to compose and plan.
const OF_CLIENTS: [&str; 6] = [
    "deprecated",
    "specifiedBy",
    "oneOf",
    "skip",
    "include",
    "defer",
];
/// Prefixes of the names that a supergraph uses internally.
const MACHINERY: [&str; 2] = ["join__", "link__"];

/// An SDL that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the schema cannot be used: {0}")]
pub struct SchemaError(String);

/// A schema, and the fields of its types that a router adds to selections.
#[derive(Debug, Clone)]
pub struct GraphSchema(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    schema: Valid<Schema>,
    /// Fields by which a router identifies objects.
    keys: HashSet<String>,
    described: Described,
}

/// The lengths of the lists in an introspection (GraphQL, section Introspection): the average for one type or field,
/// rounded up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Described {
    types: u64,
    fields: u64,
    arguments: u64,
    input_fields: u64,
    values: u64,
    interfaces: u64,
    possible_types: u64,
    directives: u64,
}

impl Described {
    fn of(schema: &Schema) -> Self {
        let (mut fields, mut arguments, mut input_fields) = (0, 0, 0);
        let (mut values, mut interfaces, mut possible_types) = (0, 0, 0);
        for ty in schema.types.values() {
            let (of_type, implemented) = match ty {
                ExtendedType::Object(ty) => (&ty.fields, &ty.implements_interfaces),
                ExtendedType::Interface(ty) => (&ty.fields, &ty.implements_interfaces),
                ExtendedType::Union(ty) => {
                    possible_types += ty.members.len();
                    continue;
                }
                ExtendedType::Enum(ty) => {
                    values += ty.values.len();
                    continue;
                }
                ExtendedType::InputObject(ty) => {
                    input_fields += ty.fields.len();
                    continue;
                }
                ExtendedType::Scalar(_) => continue,
            };
            interfaces += implemented.len();
            // Each type that implements an interface is a possible type of it.
            possible_types += implemented.len();
            fields += of_type.len();
            arguments += of_type
                .values()
                .map(|field| field.arguments.len())
                .sum::<usize>();
        }
        let types = schema.types.len();
        let each = |count: usize, of: usize| count.div_ceil(of.max(1)) as u64;
        Self {
            types: types as u64,
            fields: each(fields, types),
            arguments: each(arguments, fields),
            input_fields: each(input_fields, types),
            values: each(values, types),
            interfaces: each(interfaces, types),
            possible_types: each(possible_types, types),
            directives: schema.directive_definitions.len() as u64,
        }
    }

    /// The length of the list that a field of the introspection returns.
    pub(super) fn length(&self, field: &str) -> u64 {
        let length = match field {
            "types" => self.types,
            "fields" => self.fields,
            "args" => self.arguments,
            "inputFields" => self.input_fields,
            "enumValues" => self.values,
            "interfaces" => self.interfaces,
            "possibleTypes" => self.possible_types,
            "directives" => self.directives,
            _ => 1,
        };
        length.max(1)
    }
}

/// Scalars whose values are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    /// `ID`: a whole number counts as its text.
    Id,
    /// `Decimal`: a number counts as its text, so that no digit is lost.
    Decimal,
}

impl Scalar {
    fn of(name: &str) -> Option<Self> {
        match name {
            "ID" => Some(Self::Id),
            "Decimal" => Some(Self::Decimal),
            _ => None,
        }
    }
}

impl GraphSchema {
    /// Reads the SDL of a subgraph, as it is composed, or of a supergraph.
    ///
    /// # Errors
    /// When it is not a valid schema.
    pub fn from_sdl(sdl: &str) -> Result<Self, SchemaError> {
        let mut document = ast::Document::parse(sdl, "schema.graphql")
            .map_err(|error| SchemaError(error.errors.to_string()))?;
        let is_supergraph = sdl.contains("join__Graph");
        let entities = if is_supergraph {
            Vec::new()
        } else {
            entities(&document)
        };
        let keys = keys(&document);
        document.definitions.retain(is_of_clients);
        for definition in &mut document.definitions {
            strip(definition);
        }
        let mut text = document.to_string();
        if !is_supergraph && sdl.contains("/federation/") {
            text.push_str(&federation(&entities));
        }
        let schema = Schema::parse_and_validate(text, "schema.graphql")
            .map_err(|error| SchemaError(error.errors.to_string()))?;
        let described = Described::of(&schema);
        Ok(Self(Arc::new(Inner {
            schema,
            keys,
            described,
        })))
    }

    /// Whether a document of operations is valid against this schema.
    ///
    /// # Errors
    /// When it is not valid. The error says what is wrong.
    pub fn validate(&self, document: &str) -> Result<(), SchemaError> {
        ExecutableDocument::parse_and_validate(&self.0.schema, document, "document.graphql")
            .map(drop)
            .map_err(|error| SchemaError(error.errors.to_string()))
    }

    pub(super) fn valid(&self) -> &Valid<Schema> {
        &self.0.schema
    }

    /// The lengths of the lists in an introspection.
    pub(super) fn described(&self) -> &Described {
        &self.0.described
    }

    /// Whether a router adds a field with this name to a client's selection.
    pub(super) fn is_key(&self, name: &str) -> bool {
        name == "__typename" || self.0.keys.contains(name)
    }

    pub(super) fn scalar(name: &str) -> Option<Scalar> {
        Scalar::of(name)
    }

    /// A field of an input type.
    pub(super) fn input_field(&self, ty: &str, field: &str) -> Option<&Node<InputValueDefinition>> {
        match self.0.schema.types.get(ty)? {
            ExtendedType::InputObject(input) => input.fields.get(field).map(|field| &field.node),
            _ => None,
        }
    }
}

fn is_of_clients(definition: &Definition) -> bool {
    let name = definition.name().map_or("", |name| name.as_str());
    let is_machinery = MACHINERY.iter().any(|begin| name.starts_with(begin));
    let is_directive = matches!(definition, Definition::DirectiveDefinition(_));
    let is_built_in = is_directive && OF_CLIENTS.contains(&name);
    !(is_machinery || is_built_in || matches!(definition, Definition::SchemaExtension(_)))
        && (!is_directive || OF_CLIENTS.contains(&name))
}

/// Types with a key, which `_entities` may return.
fn entities(document: &ast::Document) -> Vec<String> {
    let mut named: Vec<String> = document
        .definitions
        .iter()
        .filter(|definition| {
            matches!(
                definition,
                Definition::ObjectTypeDefinition(_) | Definition::ObjectTypeExtension(_)
            ) && definition.directives().has("key")
        })
        .filter_map(|definition| definition.name().map(ToString::to_string))
        .collect();
    named.sort();
    named.dedup();
    named
}

/// The part of a subgraph's schema that only routers use (Apollo Federation, subgraph specification).
fn federation(entities: &[String]) -> String {
    let mut text =
        "\nscalar _Any\ntype _Service { sdl: String }\nextend type Query { _service: _Service! }\n"
            .to_owned();
    if !entities.is_empty() {
        text.push_str(&format!(
            "union _Entity = {}\nextend type Query {{ _entities(representations: [_Any!]!): [_Entity]! }}\n",
            entities.join(" | ")
        ));
    }
    text
}

/// The names in the keys of a supergraph's types (`@join__type(key:)`).
fn keys(document: &ast::Document) -> HashSet<String> {
    document
        .definitions
        .iter()
        .flat_map(|definition| definition.directives().get_all("join__type"))
        .filter_map(|directive| directive.specified_argument_by_name("key")?.as_str())
        .flat_map(|key| key.split(|any: char| !any.is_alphanumeric() && any != '_'))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn strip(definition: &mut Definition) {
    match definition {
        Definition::SchemaDefinition(node) => directives(&mut node.make_mut().directives),
        Definition::ScalarTypeDefinition(node) => directives(&mut node.make_mut().directives),
        Definition::ObjectTypeDefinition(node) => {
            let node = node.make_mut();
            directives(&mut node.directives);
            node.fields.iter_mut().for_each(field);
        }
        Definition::ObjectTypeExtension(node) => {
            let node = node.make_mut();
            directives(&mut node.directives);
            node.fields.iter_mut().for_each(field);
        }
        Definition::InterfaceTypeDefinition(node) => {
            let node = node.make_mut();
            directives(&mut node.directives);
            node.fields.iter_mut().for_each(field);
        }
        Definition::UnionTypeDefinition(node) => directives(&mut node.make_mut().directives),
        Definition::EnumTypeDefinition(node) => {
            let node = node.make_mut();
            directives(&mut node.directives);
            for value in &mut node.values {
                directives(&mut value.make_mut().directives);
            }
        }
        Definition::InputObjectTypeDefinition(node) => {
            let node = node.make_mut();
            directives(&mut node.directives);
            node.fields.iter_mut().for_each(input);
        }
        _ => {}
    }
}

fn field(field: &mut Node<FieldDefinition>) {
    let field = field.make_mut();
    directives(&mut field.directives);
    field.arguments.iter_mut().for_each(input);
}

fn input(value: &mut Node<InputValueDefinition>) {
    directives(&mut value.make_mut().directives);
}

fn directives(list: &mut DirectiveList) {
    list.0
        .retain(|directive| OF_CLIENTS.contains(&directive.name.as_str()));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SUPERGRAPH: &str = include_str!("../../../../schema/supergraph.graphql");
    const SUBGRAPHS: [&str; 2] = [
        include_str!("../../../../schema/accounts.graphql"),
        include_str!("../../../../schema/orders.graphql"),
    ];

    #[test]
    fn of_a_supergraph_clients_see_the_types_and_nothing_of_the_machinery() {
        let schema = GraphSchema::from_sdl(SUPERGRAPH).unwrap();
        let text = schema.valid().to_string();
        assert!(text.contains("type Customer") && text.contains("first: Int! = 20"));
        for machinery in ["join__", "link__", "_entities"] {
            assert!(!text.contains(machinery), "{machinery}");
        }
    }

    #[test]
    fn a_subgraph_has_its_entities_for_the_router() {
        for sdl in SUBGRAPHS {
            let schema = GraphSchema::from_sdl(sdl).unwrap();
            let text = schema.valid().to_string();
            assert!(
                text.contains("_entities(") && text.contains("_service"),
                "{text}"
            );
            assert!(!text.contains("@key") && !text.contains("@shareable"));
        }
    }
}
