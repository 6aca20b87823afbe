//! Finds all misfits of a document, where serde stops at the first one.
//!
//! The document is read several times. Each place that did not fit is replaced by a fitting placeholder in the next
//! pass, so the next misfit shows. Unknown members are reported too, each with the most similar known name. Unknown
//! members alone are no reason to refuse a document.

mod hole_filling_deserializer;
mod unknown_member;

use std::{cell::RefCell, collections::HashSet};

use serde::de::DeserializeOwned;
use serde_json::Value;

use hole_filling_deserializer::{MOST, Part, Seen};

use super::{Misfit, explain};

/// Bytes of the longest document that is surveyed. For a longer one only serde's first misfit is reported.
const LONGEST: usize = 65_536;

/// All misfits of a document that is not a `T`, at most twenty. Unknown members come first, then missing and wrong
/// ones. Empty if the document is not an object, is longer than 64 KiB, or has no misfits.
#[must_use]
pub fn misfits<T: DeserializeOwned>(json: &[u8]) -> Vec<Misfit> {
    if json.len() > LONGEST {
        return Vec::new();
    }
    let Ok(document @ Value::Object(_)) = serde_json::from_slice::<Value>(json) else {
        return Vec::new();
    };
    let mut holes = HashSet::new();
    let mut misfits: Vec<Misfit> = Vec::new();
    loop {
        let seen = RefCell::default();
        let whole = Part {
            given: Some(&document),
            path: String::new(),
            holes: &holes,
            seen: &seen,
        };
        let read = T::deserialize(whole);
        let Seen { failed, unknown } = seen.into_inner();
        let error = read.err();
        let misfit = error.map(|error| explain(&failed.unwrap_or_default(), &error.to_string()));
        if let Some(misfit) = misfit
            && misfits.len() < MOST
            && holes.insert(misfit.field.clone())
        {
            misfits.push(misfit);
            continue;
        }
        let mut all = unknown;
        misfits.truncate(MOST - all.len());
        all.extend(misfits);
        return all;
    }
}

/// The first misfit of a document that serde accepts although it has the wrong form. Serde accepts an array for an
/// object, member by member, and an object for the name of a variant.
#[must_use]
pub fn lenient_misfit<T: DeserializeOwned>(json: &[u8]) -> Option<Misfit> {
    let document = serde_json::from_slice::<Value>(json).ok()?;
    let (holes, seen) = (HashSet::new(), RefCell::default());
    let whole = Part {
        given: Some(&document),
        path: String::new(),
        holes: &holes,
        seen: &seen,
    };
    let error = T::deserialize(whole).err()?;
    let failed = seen.into_inner().failed.unwrap_or_default();
    Some(explain(&failed, &error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, dead_code)]
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Document {
        id: u64,
        name: Name,
        kind: Option<Kind>,
        #[serde(default)]
        places: Vec<Place>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Name {
        first_name: String,
        last_name: String,
    }

    #[derive(Debug, Deserialize)]
    struct Place {
        kind: Kind,
        city: String,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
    enum Kind {
        One,
        Other,
    }

    fn told(json: &str) -> Vec<String> {
        let misfits = misfits::<Document>(json.as_bytes());
        let told = |misfit: Misfit| format!("{}: {}", misfit.field, misfit.reason);
        misfits.into_iter().map(told).collect()
    }

    #[test]
    fn what_is_not_known_is_told_with_what_is_missing_at_every_depth() {
        assert_eq!(
            told(r#"{"nmae": {"firstName": "Ada"}}"#),
            [
                "nmae: unknown field; did you mean `name`?",
                "id: missing",
                "name: missing"
            ]
        );
        // serde_json keeps members in the order of the document or in the order of names, depending on how it was
        // built.
        let sorted = |mut told: Vec<String>| {
            told.sort();
            told
        };
        assert_eq!(
            sorted(told(
                r#"{"name": {"first_name": "A", "x": 1}, "places": [{"city": 5}, {"kind": "TWO", "citty": "C"}], "kind": []}"#
            )),
            [
                "id: missing",
                "kind: wrong type: an array",
                "name.firstName: missing",
                "name.first_name: unknown field; did you mean `firstName`?",
                "name.lastName: missing",
                "name.x: unknown field",
                "places[0].city: wrong type: a number",
                "places[0].kind: missing",
                "places[1].citty: unknown field; did you mean `city`?",
                "places[1].city: missing",
                "places[1].kind: unknown value",
            ]
        );
    }

    #[test]
    fn a_name_that_is_given_rightly_too_is_not_proposed() {
        let json = r#"{"id": 1, "nmae": {}, "name": {}}"#;
        assert_eq!(told(json)[0], "nmae: unknown field");
    }

    #[test]
    fn what_is_well_and_what_is_no_object_have_no_misfits() {
        let name = r#"{"firstName": "A", "lastName": "B"}"#;
        assert!(told(&format!(r#"{{"id": 1, "name": {name}, "kind": null}}"#)).is_empty());
        for other in ["[]", "5", "{", ""] {
            assert!(told(other).is_empty(), "{other}");
        }
    }

    #[test]
    fn what_serde_takes_for_something_else_is_a_misfit() {
        let names = r#"{"id": 1, "name": ["A", "B"]}"#;
        let kind =
            r#"{"id": 1, "name": {"firstName": "A", "lastName": "B"}, "kind": {"ONE": null}}"#;
        for (json, expected) in [
            (names, "name: wrong type: an array; expected an object"),
            (kind, "kind: wrong type: an object; expected a string"),
        ] {
            assert!(serde_json::from_str::<Document>(json).is_ok());
            let misfit = lenient_misfit::<Document>(json.as_bytes());
            assert_eq!(misfit.map(|misfit| misfit.to_string()).unwrap(), expected);
        }
        let well = kind.replace(r#"{"ONE": null}"#, r#""ONE""#);
        assert_eq!(lenient_misfit::<Document>(well.as_bytes()), None);
    }

    #[test]
    fn a_document_that_is_wrong_all_over_is_told_up_to_a_bound() {
        let many: Vec<String> = (0..500).map(|n| format!(r#""m{n}": {n}"#)).collect();
        assert_eq!(told(&format!("{{{}}}", many.join(","))).len(), MOST);
        let places = vec!["{}"; 500].join(",");
        let wrong = format!(r#"{{"places": [{places}]}}"#);
        assert_eq!(told(&wrong).len(), MOST);
        assert!(told(&format!("{wrong}{}", " ".repeat(LONGEST))).is_empty());
    }
}
