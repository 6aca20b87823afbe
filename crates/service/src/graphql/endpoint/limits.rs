//! How much one operation may ask for, and what every schema of ours is built with.

use async_graphql::{ObjectType, SchemaBuilder, SubscriptionType};

use crate::graphql::error::ErrorCodes;

/// How much one operation may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The deepest nesting of fields.
    pub depth: usize,
    /// The most fields, counted through all fragments.
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

/// What every schema of ours gets: limits, and a code for every error.
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
