//! Puts answers into the form that the client asked for.
//!
//! It removes fields that were added to the operation, restores the client's names, and removes locations that refer to
//! a document which the client never sent.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::aliases::restored;
use super::chosen_operation::Chosen;
use super::fillers::without_fillers;
use super::variables::{Members, member};

/// Puts an answer, or an event, of an operation into the form that its client asked for.
pub(super) fn as_asked(operation: &Chosen, answer: Bytes) -> Bytes {
    if !operation.is_altered() {
        return answer;
    }
    let Ok(text) = std::str::from_utf8(&answer) else {
        return answer;
    };
    let mut text = Cow::Borrowed(text);
    if operation.has_fillers {
        text = Cow::Owned(without_fillers(&text));
    }
    if operation.has_renamed {
        text = Cow::Owned(restored(&text));
    }
    if operation.has_other_places
        && let Some(without) = without_places(&text)
    {
        text = Cow::Owned(without);
    }
    let changed = match text {
        Cow::Borrowed(_) => None,
        Cow::Owned(text) => Some(text),
    };
    changed.map_or(answer, Bytes::from)
}

/// Removes the locations from errors: they refer to the rewritten document.
pub(super) fn without_places_in(errors: &mut [Map<String, Value>]) {
    for error in errors {
        error.remove("locations");
    }
}

/// `None` if no error of the answer has a location.
fn without_places(answer: &str) -> Option<String> {
    if !answer.contains("\"locations\":") || !answer.contains("\"errors\":") {
        return None;
    }
    let Members(members) = serde_json::from_str::<Members<'_>>(answer).ok()?;
    let mut written = String::with_capacity(answer.len());
    written.push('{');
    for (at, (name, value)) in members.iter().enumerate() {
        let errors = (name == "errors").then(|| errors_without_places(value));
        let errors = errors.flatten();
        member(
            &mut written,
            at,
            name,
            errors.as_deref().unwrap_or(value.get()),
        );
    }
    written.push('}');
    Some(written)
}

fn errors_without_places(errors: &RawValue) -> Option<String> {
    let mut errors: Vec<Map<String, Value>> = serde_json::from_str(errors.get()).ok()?;
    without_places_in(&mut errors);
    serde_json::to_string(&errors).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::test_support::documents;
    use super::*;

    const FAILED: &str = r#"{"data":{"locations":[{"line":1,"column":2}]},"errors":[{"message":"m","locations":[{"line":1,"column":38}],"path":["a"]}],"extensions":{"n":1.50}}"#;

    fn answered(is_federated: bool, document: &str) -> String {
        let operation = documents(is_federated).operation(document, None).unwrap();
        let answer = as_asked(&operation, Bytes::from_static(FAILED.as_bytes()));
        String::from_utf8(answer.to_vec()).unwrap()
    }

    #[test]
    fn an_error_has_no_place_in_a_document_that_the_client_did_not_send() {
        for (is_federated, document) in [
            (false, "query Renamed{__typename}"),
            (false, "query($n:Int){orders(first:$n){nodes{id}}}"),
            (
                false,
                r#"mutation{a:cancelOrder(id:"1"){order{id}} b:cancelOrder(id:"2"){order{id}}}"#,
            ),
            // A router makes its own document from a subscription.
            (true, "subscription{orderUpdated{order{id}}}"),
            (true, "query Renamed{__typename}"),
        ] {
            let answer = answered(is_federated, document);
            let answer: Value = serde_json::from_str(&answer).unwrap();
            assert!(answer["errors"][0].get("locations").is_none(), "{document}");
            assert_eq!(answer["errors"][0]["message"], "m");
            assert!(answer["data"]["locations"].is_array(), "{document}");
        }
        let written = answered(false, "query Renamed{__typename}");
        assert!(
            written.ends_with(r#""extensions":{"n":1.50}}"#),
            "{written}"
        );
    }

    #[test]
    fn an_error_keeps_its_place_in_the_clients_own_document() {
        for document in [
            "query Known{__typename}",
            "subscription{orderUpdated{order{id}}}",
        ] {
            assert_eq!(answered(false, document), FAILED, "{document}");
        }
    }
}
