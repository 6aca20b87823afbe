//! The limits of one operation, and the extensions that every schema gets.

use async_graphql::{ObjectType, SchemaBuilder, SubscriptionType};

use crate::graphql::error::ErrorCodes;

/// The limits of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The greatest nesting depth of fields.
    pub depth: usize,
    /// The greatest number of fields, counted through all fragments.
    pub complexity: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth: 16,
            complexity: 1_000,
        }
    }
}

/// Adds limits, and a code for every error, to a schema.
pub fn guard<Q, M, S>(builder: SchemaBuilder<Q, M, S>, limits: Limits) -> SchemaBuilder<Q, M, S>
where
    Q: ObjectType + 'static,
    M: ObjectType + 'static,
    S: SubscriptionType + 'static,
{
    builder
        .limit_depth(limits.depth)
        .limit_complexity(limits.complexity)
        .extension(ErrorCodes)
}
