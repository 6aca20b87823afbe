#![allow(clippy::unwrap_used)]
use super::*;

fn variable(name: &str, ty: &str, default: Option<&str>) -> Variable {
    Variable {
        name: name.to_owned(),
        ty: Type::parse(ty, "type").unwrap(),
        default: default.map(str::to_owned),
        needed: None,
    }
}

fn coerce(ty: &str, value: &str) -> Result<Option<String>, RequestError> {
    let schema =
        GraphSchema::from_sdl(include_str!("../../../../../schema/supergraph.graphql")).unwrap();
    let variables = [variable("v", ty, None)];
    let text = format!(r#"{{"v":{value}}}"#);
    let raw: &RawValue = serde_json::from_str(&text).unwrap();
    let written = coerced(&schema, &variables, &Members::of(Some(raw)))?;
    Ok(written.map(|text| text[5..text.len() - 1].to_owned()))
}

fn field_of(ty: &str, value: &str) -> String {
    let error = coerce(ty, value).unwrap_err();
    error.message().split('`').nth(1).unwrap().to_owned()
}

#[test]
fn a_whole_number_is_an_id_and_nothing_else_is() {
    for (given, written) in [("42", "\"42\""), ("-1", "\"-1\""), ("0", "\"0\"")] {
        assert_eq!(coerce("ID!", given).unwrap().unwrap(), written);
    }
    let huge = "123456789012345678901234567890";
    assert_eq!(coerce("ID", huge).unwrap().unwrap(), format!("\"{huge}\""));
    for kept in ["\"42\"", "null", "\"\""] {
        assert_eq!(coerce("ID", kept).unwrap(), None);
    }
    for wrong in ["4.5", "true", "1e3", "[]", "{}"] {
        assert_eq!(field_of("ID!", wrong), "v", "{wrong}");
    }
}

#[test]
fn a_decimal_keeps_every_digit_and_what_is_none_is_named() {
    let input = |price: &str| {
        format!(
            r#"{{"customerId":7,"items":[{{"product":{{"guid":"g","title":"t","price":{price}}},"quantity":1}}]}}"#
        )
    };
    let written = coerce("PlaceOrderInput!", &input("123456789012.12345678"))
        .unwrap()
        .unwrap();
    assert_eq!(
        written,
        input("\"123456789012.12345678\"").replace(":7,", ":\"7\",")
    );
    let too_many = "9".repeat(29);
    for wrong in [
        "\"abc\"", "1e2", "true", "\"\"", "\"1.\"", "\".5\"", "\"1,5\"", "{}", &too_many,
    ] {
        assert_eq!(
            field_of("PlaceOrderInput!", &input(wrong)),
            "input.items[0].product.price".replace("input", "v"),
            "{wrong}"
        );
    }
}

#[test]
fn what_is_not_of_its_type_is_refused_with_its_field() {
    for (ty, value, field) in [
        ("PlaceOrderInput!", "5", "v"),
        ("PlaceOrderInput!", "[]", "v"),
        ("PlaceOrderInput", r#"{"customerId":1}"#, "v.items"),
        (
            "PlaceOrderInput",
            r#"{"customerId":1,"items":[null]}"#,
            "v.items[0]",
        ),
        (
            "PlaceOrderInput",
            r#"{"customerId":1,"items":[],"unknown":{"a":1}}"#,
            "v.unknown",
        ),
        (
            "NameInput",
            r#"{"firstName":5,"lastName":"x"}"#,
            "v.firstName",
        ),
        (
            "NameInput",
            r#"{"firstName":null,"lastName":"x"}"#,
            "v.firstName",
        ),
        ("OrderStatus", "\"NOPE\"", "v"),
        ("OrderStatus", "1", "v"),
        ("[OrderStatus!]", "[\"PLACED\",\"NOPE\"]", "v[1]"),
        ("Int", "5.5", "v"),
        ("Int", "2147483648", "v"),
        ("Int", "true", "v"),
        ("Int!", "null", "v"),
        ("Boolean", "\"yes\"", "v"),
        ("String", "5", "v"),
    ] {
        assert_eq!(field_of(ty, value), field, "{ty} {value}");
    }
    for (ty, value) in [
        ("Int", "-2147483648"),
        ("Int", "null"),
        ("String", "\"5\""),
        ("OrderStatus", "\"PLACED\""),
        ("[OrderStatus!]!", "\"PLACED\""),
        ("Boolean!", "false"),
        ("DateTime", "{}"),
        ("[_Any!]!", "[null,5]"),
    ] {
        assert_eq!(coerce(ty, value).unwrap(), None, "{ty} {value}");
    }
    assert_eq!(coerce("Int", "-0").unwrap().unwrap(), "0");
}

#[test]
fn a_variable_without_a_default_that_may_not_be_null_is_missed() {
    let schema =
        GraphSchema::from_sdl(include_str!("../../../../../schema/supergraph.graphql")).unwrap();
    let none = Members::of(None);
    let missed = coerced(&schema, &[variable("v", "Boolean!", None)], &none).unwrap_err();
    assert!(missed.message().starts_with("`v` is missing"), "{missed:?}");
    let optional = [variable("v", "Boolean", None)];
    assert_eq!(coerced(&schema, &optional, &none).unwrap(), None);
}

#[test]
fn the_default_of_a_variable_that_is_not_given_is_handed_on_as_if_it_were() {
    let schema =
        GraphSchema::from_sdl(include_str!("../../../../../schema/supergraph.graphql")).unwrap();
    let variables = [
        variable("a", "Boolean!", Some("true")),
        variable("b", "Int", Some("null")),
        variable("c", "String", None),
        variable("d", "String", Some("\"x\"")),
    ];
    let with = |given: &str| {
        let raw: &RawValue = serde_json::from_str(given).unwrap();
        coerced(&schema, &variables, &Members::of(Some(raw))).unwrap()
    };
    for (given, written) in [
        ("{}", r#"{"a":true,"b":null,"d":"x"}"#),
        (
            r#"{"c":"y","d":null}"#,
            r#"{"c":"y","d":null,"a":true,"b":null}"#,
        ),
        (r#"{"a":false,"b":7}"#, r#"{"a":false,"b":7,"d":"x"}"#),
    ] {
        assert_eq!(with(given).as_deref(), Some(written), "{given}");
    }
    assert_eq!(with(r#"{"a":false,"b":7,"d":"z"}"#), None);
    let none = coerced(&schema, &variables, &Members::of(None)).unwrap();
    assert_eq!(none.as_deref(), Some(r#"{"a":true,"b":null,"d":"x"}"#));
}

#[test]
fn null_is_refused_where_a_default_stands_in_for_what_is_not_given_alone() {
    let schema =
        GraphSchema::from_sdl(include_str!("../../../../../schema/supergraph.graphql")).unwrap();
    let needed = |default| Variable {
        needed: Some(Type::parse("Int!", "type").unwrap()),
        ..variable("v", "Int", default)
    };
    let null: &RawValue = serde_json::from_str(r#"{"v":null}"#).unwrap();
    for (default, given) in [
        (None, Some(null)),
        (Some("7"), Some(null)),
        (Some("null"), None),
    ] {
        let refused = coerced(&schema, &[needed(default)], &Members::of(given)).unwrap_err();
        assert!(refused.message().starts_with("`v` is null"), "{refused:?}");
        assert!(refused.message().contains("Int!"), "{refused:?}");
    }
    for default in [None, Some("7")] {
        coerced(&schema, &[needed(default)], &Members::of(None)).unwrap();
    }
}
