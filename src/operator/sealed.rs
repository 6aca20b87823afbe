//! What is sealed in an event: opened where there is the key to it. Numbers of cards are never shown, wherever they are.

use serde_json::{Map, Value};
pub(super) use tandem_assembly::admin::audit::cards::{mask_cards, mask_cards_at, without_cards};
use tandem_event_path::data_keys::DataKey;

/// Puts what is sealed for `place` in a body where it belongs, if there is the key to it. Whether nothing is sealed any more.
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
