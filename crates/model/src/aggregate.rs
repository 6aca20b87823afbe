//! What a store needs to know about an aggregate to keep it, without knowing its rules.

use serde::{Serialize, de::DeserializeOwned};

/// A state that changes one revision at a time.
///
/// Stores write it through serde. Times and decimals use the database's own types in binary formats (BSON), and text in
/// human-readable formats (JSON).
pub trait Aggregate:
    Clone + std::fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// The name of this kind of aggregate in messages and metrics, such as `customer`.
    const NAME: &'static str;

    /// The collection that holds these aggregates, such as `customer.accounts`.
    const COLLECTION: &'static str;

    /// The lists that can be read. Each entry names the fields that narrow the list. Every list is in order of id. The
    /// list of all aggregates needs no entry.
    const INDEXES: &'static [&'static [&'static str]];

    /// The id of the aggregate: 1 to 64 characters of `A-Z a-z 0-9 _ -`.
    fn id(&self) -> &str;

    /// The revision: 1 at creation, and one more with every change.
    fn revision(&self) -> i64;

    /// The stored value of a field that [`Self::INDEXES`] names. `None` if there is no such field.
    fn field(&self, name: &str) -> Option<String>;
}
