//! The key of an aggregate in a filtered list: entries with the same values are sorted by id.

use crate::WorkError;
use tandem_model::aggregate::Aggregate;

/// The key of an aggregate in each list. It is empty if the aggregate lacks a field, and so is not in that list.
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

/// Values and id as one key, sorted by id within the same values. A zero byte ends each value. A zero byte inside of a
/// value is followed by 255, so that no value looks like the beginning of another one.
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
