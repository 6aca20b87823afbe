//! Details of the federation that clients must not see: the keys that the router adds, and the error of one entity on
//! all others.

use super::*;

fn create(tandem: &Tandem, id: &str) {
    tandem.customer(&Client::new(), id);
}

#[test]
fn an_alias_answers_what_it_names_also_where_it_covers_a_key() {
    let tandem = Tandem::start();
    create(&tandem, "1");
    let plain = graphql(
        tandem.gateway,
        r#"{customer(id:"1"){createdAt}}"#,
        &json!({}),
    );
    let created = plain.json()["data"]["customer"]["createdAt"].clone();
    assert!(created.is_string(), "{plain:?}");
    let document =
        r#"{customer(id:"1"){id:createdAt __typename:id x:id orders(first:1){nodes{id:status}}}}"#;
    for _ in 0..2 {
        let answer = graphql(tandem.gateway, document, &json!({}));
        let customer = json!({"id": created, "__typename": "1", "x": "1", "orders": {"nodes": []}});
        assert_eq!(answer.json(), json!({"data": {"customer": customer}}));
    }
    let document = r#"{orderingCustomer(id:"1"){id:__typename revision}}"#;
    let answer = graphql(tandem.gateway, document, &json!({}));
    assert_eq!(
        answer.json(),
        json!({"data": {"orderingCustomer": {"id": "Customer", "revision": 1}}})
    );
}

#[test]
fn one_bad_representation_costs_its_own_entity_on_both_services() {
    let tandem = Tandem::start();
    create(&tandem, "1");
    let query = "query($of:[_Any!]!){_entities(representations:$of){...on Customer{id}}}";
    let of = json!([
        {"__typename": "Customer", "id": "1"},
        {"__typename": "Nothing", "id": "1"},
        {"__typename": "Customer", "id": "1"},
    ]);
    for port in [tandem.accounts, tandem.orders] {
        let answer = graphql(port, query, &json!({"of": of})).json();
        assert_eq!(
            answer["data"]["_entities"],
            json!([{"id": "1"}, null, {"id": "1"}]),
            "{answer}"
        );
        let error = &answer["errors"][0];
        assert_eq!(error["path"], json!(["_entities", 1]));
        assert_eq!(error["extensions"]["code"], "BAD_USER_INPUT");
    }
}

#[test]
fn the_fields_of_a_mutation_see_what_those_before_them_did() {
    let tandem = Tandem::start();
    create(&tandem, "1");
    let change = |name: &str| {
        format!(
            r#"{name}:updateCustomer(id:"1",input:{{name:{{firstName:"{name}",lastName:"L"}}}}){{customer{{name{{firstName}} revision}}}}"#
        )
    };
    let mutation = format!(
        "mutation{{{} {} {}}}",
        change("a"),
        change("b"),
        change("c")
    );
    let answer = graphql(tandem.gateway, &mutation, &json!({})).json();
    for (name, revision) in [("a", 2), ("b", 3), ("c", 4)] {
        let customer = json!({"name": {"firstName": name}, "revision": revision});
        assert_eq!(answer["data"][name]["customer"], customer, "{answer}");
    }
}
