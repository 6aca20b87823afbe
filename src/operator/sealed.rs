//! Opens sealed data in an event, where the key is available. Card numbers are never shown, wherever they are.

use serde_json::{Map, Value};
pub(super) use tandem_assembly::admin::audit::cards::{mask_cards, mask_cards_at, without_cards};
use tandem_event_path::data_keys::DataKey;

/// Puts the data that is sealed for `place` back into a body, if the key is available. Returns whether nothing is
/// sealed any more.
pub(super) fn open(body: &mut Map<String, Value>, key: Option<&DataKey>, place: &str) -> bool {
    let Some(Value::String(sealed)) = body.get("sealed") else {
        return true;
    };
    let opened = key
        .and_then(|key| key.open(sealed, place).ok())
        .and_then(|plain| serde_json::from_slice::<Map<String, Value>>(&plain).ok());
    let Some(person) = opened else {
        return false;
    };
    body.remove("sealed");
    body.extend(person);
    true
}
