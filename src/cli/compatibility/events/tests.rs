//! Which changes of a schema are breaking and which are not, one change at a time.

use serde_json::json;

use super::*;

fn old() -> Value {
    json!({
        "type": "object",
        "properties": {
            "id": { "type": "string" },
            "revision": { "type": "integer", "minimum": 1 },
            "note": { "type": ["string", "null"] },
            "kind": { "$ref": "#/$defs/Kind" },
            "tags": { "type": "array", "items": { "type": "string" } },
        },
        "required": ["id", "revision"],
        "$defs": { "Kind": { "oneOf": [
            { "type": "string", "const": "MADE", "description": "First." },
            { "type": "string", "const": "GONE" },
        ] } },
    })
}

fn breaks(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut new = old();
    change(&mut new);
    let found = compare(&old(), &new).into_iter();
    let breaking = found.filter(|it| it.severity == Breaking);
    breaking.map(|it| it.place).collect()
}

#[test]
fn nothing_changed_is_nothing_found() {
    assert_eq!(compare(&old(), &old()), []);
}

#[test]
fn what_one_side_would_not_take_breaks() {
    assert_eq!(breaks(|it| it["required"] = json!(["id"])), ["/revision"]);
    let required = json!(["id", "revision", "note"]);
    assert_eq!(breaks(|it| it["required"] = required), ["/note"]);
    let number = json!({ "type": "integer" });
    assert_eq!(breaks(|it| it["properties"]["id"] = number).len(), 2);
    let text = json!({ "type": "string" });
    assert_eq!(breaks(|it| it["properties"]["note"] = text), ["/note"]);
    assert_eq!(
        breaks(|it| it["properties"]["revision"]["minimum"] = json!(0)),
        ["/revision"]
    );
    let third = json!([{ "const": "MADE" }, { "const": "GONE" }, { "const": "SOLD" }]);
    assert_eq!(breaks(|it| it["$defs"]["Kind"]["oneOf"] = third), ["/kind"]);
    let items = json!({ "type": "object" });
    let items = breaks(|it| it["properties"]["tags"]["items"] = items);
    assert_eq!(items, ["/tags/*", "/tags/*"]);
    let pattern = json!("^[a-z]+$");
    assert_eq!(
        breaks(|it| it["properties"]["id"]["pattern"] = pattern),
        ["/id"]
    );
    assert_eq!(
        breaks(|it| it["additionalProperties"] = json!(false)),
        ["/"]
    );
}

#[test]
fn a_member_that_may_be_missing_is_safe() {
    let mut new = old();
    new["properties"]["more"] = json!({ "type": "integer" });
    new["title"] = json!("Another title");
    let expected = Finding::new(Safe, "/more", "is new and may be missing");
    assert_eq!(compare(&old(), &new), [expected]);
}

#[test]
fn the_schemas_of_the_program_are_compatible_with_themselves_when_all_of_them_is_compared() {
    for text in [
        include_str!("../../../../schema/events/customer-change-event.v1.json"),
        include_str!("../../../../schema/events/customer-change-event.v2.json"),
        include_str!("../../../../schema/events/order-change-event.v1.json"),
    ] {
        let schema: Value = serde_json::from_str(text).unwrap_or_default();
        assert!(schema["properties"].is_object());
        // With another title the text differs, and references may point to something else.
        let mut other = schema.clone();
        other["title"] = json!("Another title");
        assert_eq!(compare(&schema, &other), []);
    }
}

/// Where a change of the only member of an event is breaking. The event's definitions are `Text` and `Other`.
fn of_member(old: Value, new: Value) -> Vec<(String, String)> {
    let event = |member: Value| {
        json!({
            "type": "object",
            "properties": { "it": member },
            "$defs": {
                "Text": { "type": "string" },
                "Other": { "type": "object", "properties": { "a": { "type": "string" } } },
            },
        })
    };
    let found = compare(&event(old), &event(new)).into_iter();
    let breaking = found.filter(|it| it.severity == Breaking);
    breaking.map(|it| (it.place, it.what)).collect()
}

#[test]
fn what_stands_beside_a_reference_is_compared() {
    let bounded = json!({ "$ref": "#/$defs/Text", "maxLength": 3 });
    let free = json!({ "$ref": "#/$defs/Text", "description": "Says nothing." });
    let found = of_member(free.clone(), bounded.clone());
    let what =
        "has no maxLength, where 3 is asked for: events that the log has are not taken any more";
    assert_eq!(found, [("/it".to_owned(), what.to_owned())]);
    assert_eq!(of_member(bounded.clone(), free).len(), 1);
    let wider = json!({ "$ref": "#/$defs/Text", "maxLength": 4 });
    assert_eq!(of_member(bounded, wider).len(), 1);
}

#[test]
fn what_stands_beside_alternatives_is_compared() {
    for keyword in ["anyOf", "oneOf"] {
        let alternatives = json!([{ "$ref": "#/$defs/Other" }, { "type": "null" }]);
        let free = json!({ keyword: alternatives });
        let mut demanding = free.clone();
        demanding["required"] = json!(["a"]);
        let found = of_member(free.clone(), demanding.clone());
        assert_eq!(found.len(), 1, "{keyword}: {found:?}");
        assert_eq!(found[0].0, "/it/a", "{keyword}");
        // The written document is known to have the member.
        let mut inner = free.clone();
        inner[keyword][0]["required"] = json!(["a"]);
        assert!(of_member(demanding, inner).is_empty(), "{keyword}");
    }
}

#[test]
fn alternatives_beside_alternatives_must_all_hold() {
    let one = json!({ "anyOf": [{ "type": "string" }, { "type": "null" }] });
    let mut two = one.clone();
    two["oneOf"] = json!([{ "const": "a" }, { "const": "b" }]);
    let found = of_member(one, two.clone());
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|(place, _)| place == "/it"), "{found:?}");
    assert!(of_member(two, json!({ "enum": ["a", "b"] })).is_empty());
}

#[test]
fn a_keyword_that_is_not_understood_is_named_with_its_place_and_never_passed() {
    let refused = |old: Value, new: Value, said: &str| {
        let found = of_member(old, new);
        let (place, what) = &found[0];
        assert_eq!(place, "/it", "{found:?}");
        assert!(what.starts_with(said), "{said}: {found:?}");
        assert!(what.contains("not understood"), "{found:?}");
    };
    let unknown = |keyword: &str| format!("has the keyword {keyword}: ");
    let text = || json!({ "type": "object", "properties": { "a": { "$ref": "#/$defs/Text" } } });
    for keyword in [
        "patternProperties",
        "unevaluatedProperties",
        "if",
        "dependentSchemas",
    ] {
        let mut new = text();
        new[keyword] = json!({ "x": false });
        refused(text(), new, &unknown(keyword));
    }
    // The same keyword means something else beside others, and where the schema that it refers to may differ.
    let with = |keyword: &str, value: Value, more: Value| {
        let mut schema = text();
        schema[keyword] = value;
        schema["properties"]["b"] = more;
        schema
    };
    for (keyword, value) in [
        ("unevaluatedProperties", json!(false)),
        ("not", json!({ "$ref": "#/$defs/Other" })),
    ] {
        let old = with(keyword, value.clone(), json!(true));
        let new = with(keyword, value, json!({ "type": "string" }));
        refused(old, new, &unknown(keyword));
    }
    let array = |items: Value| json!({ "prefixItems": [{ "type": "null" }], "items": items });
    let string = || json!({ "type": "string" });
    refused(array(json!(true)), array(string()), &unknown("prefixItems"));
    refused(string(), json!({ "$ref": "other.json" }), "has $ref");
    let overlapping = json!({ "oneOf": [{ "type": "string" }, { "minLength": 3 }] });
    refused(overlapping, string(), "has oneOf");
}

#[test]
fn what_is_the_same_with_all_that_it_refers_to_need_not_be_understood() {
    let odd = json!({ "type": "object", "patternProperties": { "^x": { "type": "string" } } });
    let mut other = odd.clone();
    other["description"] = json!("Says nothing.");
    assert!(of_member(odd.clone(), odd.clone()).is_empty());
    assert!(!of_member(odd, other).is_empty());
}

#[test]
fn constants_are_of_the_type_that_they_are_of() {
    let text = json!({ "type": "string" });
    assert_eq!(of_member(json!({ "const": 5 }), text.clone()).len(), 2);
    assert_eq!(of_member(json!({ "const": "a" }), text).len(), 1);
}

#[test]
fn members_that_are_not_listed_are_compared_with_those_that_are() {
    let open = |more: Value| json!({ "type": "object", "additionalProperties": more });
    let found = of_member(
        open(json!({ "type": "string" })),
        open(json!({ "type": "integer" })),
    );
    assert!(found.iter().all(|(place, _)| place == "/it/*"));
    assert_eq!(found.len(), 2, "{found:?}");
    let mut listed = open(json!({ "type": "string" }));
    listed["properties"] = json!({ "a": { "type": "integer" } });
    let found = of_member(open(json!({ "type": "string" })), listed);
    assert!(found.iter().all(|(place, _)| place == "/it/a"), "{found:?}");
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_schema_that_has_itself_in_it_is_compared_to_its_end() {
    let tree = |title: &str, leaf: &str| {
        json!({
            "title": title,
            "type": "object",
            "properties": { "leaf": { "type": leaf }, "next": { "$ref": "#" } },
        })
    };
    assert_eq!(compare(&tree("a", "string"), &tree("b", "string")), []);
    let found = compare(&tree("a", "string"), &tree("a", "integer"));
    let places: BTreeSet<&str> = found.iter().map(|it| it.place.as_str()).collect();
    assert_eq!(places, BTreeSet::from(["/leaf", "/next/leaf"]));
}
