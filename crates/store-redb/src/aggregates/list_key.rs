//! The key of an aggregate in a list that is narrowed by fields: it sorts by id within the same values.

use crate::WorkError;
use tandem_model::aggregate::Aggregate;

/// The key of an aggregate in each list; empty where it lacks a field and so is in no such list.
pub(super) fn list_keys<A: Aggregate>(state: &A) -> Result<Vec<Vec<u8>>, WorkError> {
    A::INDEXES
        .iter()
        .map(|fields| {
            let values: Option<Vec<String>> =
                fields.iter().map(|field| state.field(field)).collect();
            Ok(values.map_or_else(Vec::new, |values| {
                list_key(values.iter().map(String::as_str), state.id())
            }))
        })
        .collect()
}

/// Values and id as one key that sorts by id within the same values. A zero byte ends each value; one inside a value
/// is followed by 255, so that no value can pass for the beginning of another.
pub(super) fn list_key<'a>(values: impl Iterator<Item = &'a str>, id: &str) -> Vec<u8> {
    let mut key = Vec::new();
    for value in values {
        for byte in value.bytes() {
            key.push(byte);
            if byte == 0 {
                key.push(255);
            }
        }
        key.extend([0, 0]);
    }
    key.extend(id.bytes());
    key
}
