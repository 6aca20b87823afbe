//! What a store needs to know of an aggregate in order to keep it, without knowing its rules.

use serde::{Serialize, de::DeserializeOwned};

/// A state that changes one revision at a time.
///
/// It is stored through serde. Types that a database has of its own (times, decimals) are written as such
/// where the format is not meant for people (BSON) and as text where it is (JSON).
pub trait Aggregate:
    Clone + std::fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// What one is called in messages and metrics, such as `customer`.
    const NAME: &'static str;

    /// The collection that holds them, such as `customer.accounts`.
    const COLLECTION: &'static str;

    /// The lists that can be read, each as the fields it is narrowed by; all are in order of id.
    /// The list of all needs no entry.
    const INDEXES: &'static [&'static [&'static str]];

    /// Its identity: 1 to 64 characters of `A-Z a-z 0-9 _ -`.
    fn id(&self) -> &str;

    /// 1 at creation, one more with every change.
    fn revision(&self) -> i64;

    /// The value of a field named in [`Self::INDEXES`], as it is stored; `None` if there is no such field.
    fn field(&self, name: &str) -> Option<String>;
}
