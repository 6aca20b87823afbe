//! GraphQL over HTTP and server-sent events, as specified.

use std::io::{Read, Write};

use super::*;

const SUBSCRIPTION: &str = r#"subscription{customerUpdated(id:"1"){id}}"#;

/// A customer that both services know.
fn create(tandem: &Tandem, id: &str) {
    tandem.customer(&Client::new(), id);
}

#[test]
fn values_are_coerced_as_the_specification_says() {
    let tandem = Tandem::start();
    create(&tandem, "42");
    for (name, port) in ports(&tandem) {
        let (one, page) = match name {
            "orders" => ("orderingCustomer", "orders"),
            _ => ("customer", "customers"),
        };
        let query = format!("query($id:ID!){{{one}(id:$id){{id}}}}");
        let answer = graphql(port, &query, &json!({"id": 42}));
        assert_eq!(answer.json()["data"][one]["id"], "42", "{name}: {answer:?}");
        for wrong in [json!(4.5), json!(true), json!([]), json!({})] {
            let answer = graphql(port, &query, &json!({"id": wrong}));
            assert_eq!(answer.code(), "BAD_USER_INPUT", "{name} {wrong}");
        }
        let query = format!("query($n:Int){{{page}(first:$n){{nodes{{id}}}}}}");
        let answer = graphql(port, &query, &json!({}));
        assert!(
            answer.json()["data"][page]["nodes"].is_array(),
            "{name}: {answer:?}"
        );
        let query = format!("query($n:Int){{{page}(first:$n){{nodes{{id}}}}}}");
        assert_eq!(
            graphql(port, &query, &json!({"n": null})).code(),
            "BAD_USER_INPUT"
        );
        let empty = format!("{{{page}(first:1){{nodes{{id@include(if:false)}}}}}}");
        let answer = graphql(port, &empty, &json!({}));
        let nodes = answer.json()["data"][page]["nodes"].clone();
        assert!(
            nodes
                .as_array()
                .unwrap()
                .iter()
                .all(|node| *node == json!({})),
            "{name}: {answer:?}"
        );
        let answer = graphql(port, "{__typename@include(if:false)}", &json!({}));
        assert_eq!(answer.json()["data"], json!({}), "{name}: {answer:?}");
    }
}

#[test]
fn nothing_of_a_mutation_is_carried_out_where_a_variable_does_not_fit() {
    let tandem = Tandem::start();
    create(&tandem, "11");
    let change = |name: &str, input: &str| {
        format!(r#"{name}:updateCustomer(id:"11",input:{input}){{customer{{revision}}}}"#)
    };
    let fine = change("a", r#"{name:{firstName:"A",lastName:"B"}}"#);
    for (name, port) in [("G", tandem.gateway), ("A", tandem.accounts)] {
        for (declared, used, variables) in [
            (
                "$i:ID!",
                "b:updateCustomer(id:$i,input:{}){customer{id}}".to_owned(),
                json!({}),
            ),
            (
                "$s:Boolean!",
                format!("...@skip(if:$s){{{}}}", change("b", "{}")),
                json!({}),
            ),
            (
                "$s:Boolean!",
                format!("...@skip(if:$s){{{}}}", change("b", "{}")),
                json!({"s": "no"}),
            ),
            (
                "$n:Int",
                r#"b:updateCustomer(id:"11",input:{},expectedRevision:$n){customer{id}}"#
                    .to_owned(),
                json!({"n": 2_147_483_648_u32}),
            ),
            (
                "$u:UpdateCustomerInput!",
                change("b", "$u"),
                json!({"u": {"name": {"firstName": "x"}}}),
            ),
            (
                "$u:UpdateCustomerInput!",
                change("b", "$u"),
                json!({"u": {"nick": "x"}}),
            ),
            (
                "$t:AddressType!",
                change(
                    "b",
                    r#"{addresses:[{type:$t,address1:"a",city:"c",state:"CA",postalCode:"12345"}]}"#,
                ),
                json!({"t": "NOWHERE"}),
            ),
        ] {
            let mutation = format!("mutation({declared}){{{fine} {used}}}");
            for (accept, status) in [
                ("application/graphql-response+json", 400),
                ("application/json", 200),
            ] {
                let request = json!({"query": mutation, "variables": variables});
                let answer = graphql_with(port, &[("accept", accept)], &request);
                assert_eq!(answer.status, status, "{name}: {answer:?}");
                assert_eq!(answer.code(), "BAD_USER_INPUT", "{name}: {answer:?}");
                let answer = answer.json();
                assert!(answer.get("data").is_none(), "{name}: {answer}");
                assert!(answer["errors"][0]["extensions"]["field"].is_string());
            }
        }
        let read = graphql(port, r#"{customer(id:"11"){revision}}"#, &json!({}));
        assert_eq!(read.json()["data"]["customer"]["revision"], 1, "{name}");
    }
}

#[test]
fn characters_beyond_the_basic_plane_may_be_escaped_in_documents() {
    let tandem = Tandem::start();
    create(&tandem, "7");
    for port in [tandem.gateway, tandem.accounts] {
        for escaped in [r"\uD83D\uDE00", r"\u{1F600}", "😀", r"\ud83d\ude00"] {
            let mutation = format!(
                r#"mutation{{updateCustomer(id:"7",input:{{name:{{firstName:"{escaped}",lastName:"B"}}}}){{customer{{name{{firstName}}}}}}}}"#
            );
            let answer = graphql(port, &mutation, &json!({}));
            let name = &answer.json()["data"]["updateCustomer"]["customer"]["name"];
            assert_eq!(name["firstName"], "😀", "{escaped}: {answer:?}");
        }
        for lone in [r"\uD83D", r"\uDE00", r"\u{D800}"] {
            let query = format!(r#"{{customer(id:"{lone}"){{id}}}}"#);
            assert_eq!(graphql(port, &query, &json!({})).code(), "BAD_USER_INPUT");
        }
    }
}

#[test]
fn a_price_keeps_every_digit_however_it_is_written() {
    let tandem = Tandem::start();
    create(&tandem, "9");
    let mutation =
        "mutation($input:PlaceOrderInput!){placeOrder(input:$input){order{items{product{price}}}}}";
    for port in [tandem.gateway, tandem.orders] {
        for price in ["12.50", "\"12.50\"", "0.1", "123456789012.12345678"] {
            let variables = format!(
                r#"{{"input":{{"customerId":9,"items":[{{"quantity":1,"product":{{"guid":"g","title":"t","price":{price}}}}}]}}}}"#
            );
            let body = format!(r#"{{"query":{},"variables":{variables}}}"#, json!(mutation));
            let answer = send(
                port,
                "POST",
                "/graphql",
                &[("content-type", "application/json")],
                body.as_bytes(),
            );
            let kept =
                &answer.json()["data"]["placeOrder"]["order"]["items"][0]["product"]["price"];
            assert_eq!(kept.as_str(), Some(price.trim_matches('"')), "{answer:?}");
        }
        // Digits beyond the precision are never truncated silently.
        for price in ["1234567890123.5", "0.123456789012345678901234567890123"] {
            let variables = format!(
                r#"{{"input":{{"customerId":9,"items":[{{"quantity":1,"product":{{"guid":"g","title":"t","price":{price}}}}}]}}}}"#
            );
            let body = format!(r#"{{"query":{},"variables":{variables}}}"#, json!(mutation));
            let kind = [("content-type", "application/json")];
            let answer = send(port, "POST", "/graphql", &kind, body.as_bytes());
            assert_eq!(answer.code(), "BAD_USER_INPUT", "{answer:?}");
            let field = &answer.json()["errors"][0]["extensions"]["field"];
            assert_eq!(field, "input.items[0].product.price", "{answer:?}");
        }
        let wrong = json!({"input": {"customerId": "9", "items": [{"quantity": 1, "product": {"guid": "g", "title": "t", "price": "abc"}}]}});
        let answer = graphql(port, mutation, &wrong);
        assert_eq!(answer.code(), "BAD_USER_INPUT", "{answer:?}");
        let field = &answer.json()["errors"][0]["extensions"]["field"];
        assert_eq!(field, "input.items[0].product.price");
        assert!(answer.message().contains("12.50"), "{answer:?}");
        let in_document = r#"mutation{placeOrder(input:{customerId:"9",items:[{quantity:1,product:{guid:"g",title:"t",price:"abc"}}]}){order{id}}}"#;
        let answer = graphql(port, in_document, &json!({}));
        assert_eq!(answer.code(), "BAD_USER_INPUT", "{answer:?}");
        let field = &answer.json()["errors"][0]["extensions"]["field"];
        assert_eq!(field, "input.items[0].product.price");
    }
}

#[test]
fn documents_that_the_specification_refuses_are_refused_on_every_port() {
    let tandem = Tandem::start();
    for (name, port) in ports(&tandem) {
        for document in [
            "query A{__typename} query B{__typename}",
            "{__typename{x}}",
            "{__typename@nope}",
            "query($a:Int,$a:Int){__typename}",
            "{...x}",
            "fragment x on Query{__typename}",
        ] {
            let answer = graphql(port, document, &json!({}));
            assert_eq!(
                answer.code(),
                "BAD_USER_INPUT",
                "{name} {document}: {answer:?}"
            );
            assert!(answer.json().get("data").is_none(), "{name} {document}");
        }
    }
    for port in [tandem.gateway, tandem.orders] {
        for document in [
            r#"mutation{advanceOrder(id:"1",to:"SHIPPED"){order{id}}}"#,
            r#"subscription{a:customerUpdated(id:"1"){id} b:customerUpdated(id:"2"){id}}"#,
            r#"subscription{...x} fragment x on Subscription{a:customerUpdated(id:"1"){id} b:customerUpdated(id:"2"){id}}"#,
            r#"subscription($s:Boolean=true){customerUpdated(id:"1")@include(if:$s){id}}"#,
        ] {
            let answer = graphql_with(
                port,
                &[("accept", "text/event-stream, application/json")],
                &json!({"query": document}),
            );
            assert_eq!(answer.code(), "BAD_USER_INPUT", "{document}: {answer:?}");
        }
    }
}

#[test]
fn http_is_spoken_to_the_letter_on_every_port() {
    let tandem = Tandem::start();
    for (name, port) in ports(&tandem) {
        let answer = get(port, "/graphql?query=%7B__typename%7D", &[]);
        assert_eq!(answer.json()["data"]["__typename"], "Query", "{name}");
        let answer = send(port, "PUT", "/graphql", &[], b"");
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("GET, HEAD, POST")),
            "{name}"
        );
        for (accept, kind, status) in [
            (
                "application/graphql-response+json",
                "application/graphql-response+json",
                400,
            ),
            ("application/json", "application/json", 200),
            ("*/*", "application/json", 200),
        ] {
            let answer = graphql_with(port, &[("accept", accept)], &json!({"query": "{"}));
            assert_eq!(answer.status, status, "{name} {accept}");
            assert!(
                answer.header("content-type").unwrap().starts_with(kind),
                "{name}"
            );
        }
        let accept = [("accept", "image/png")];
        assert_eq!(
            graphql_with(port, &accept, &json!({"query": "{__typename}"})).status,
            406
        );
        let answer = graphql_with(
            port,
            &[("accept", "text/event-stream")],
            &json!({"query": "{__typename}"}),
        );
        assert_eq!(
            answer.body,
            "event: next\ndata: {\"data\":{\"__typename\":\"Query\"}}\n\nevent: complete\ndata: \n\n",
            "{name}"
        );
        for unnamed in [&[("accept", "*/*")][..], &[][..]] {
            let answer = graphql_with(port, unnamed, &json!({"query": SUBSCRIPTION}));
            assert!(
                answer.status == 406 || name == "accounts",
                "{name}: {answer:?}"
            );
        }
        let encoded = [
            ("content-type", "application/json"),
            ("content-encoding", "br"),
        ];
        assert_eq!(
            send(port, "POST", "/graphql", &encoded, b"{}").status,
            415,
            "{name}"
        );
        for path in [
            "/actuator/health",
            "/actuator/info",
            "/graphql?query=%7B__typename%7D",
        ] {
            let (head, whole) = (send(port, "HEAD", path, &[], b""), get(port, path, &[]));
            assert_eq!(
                (head.status, head.body.as_str()),
                (whole.status, ""),
                "{name} {path}"
            );
            assert_eq!(head.header("content-type"), whole.header("content-type"));
        }
    }
}

#[test]
fn a_document_may_be_named_by_its_hash() {
    let tandem = Tandem::start();
    let query = "{ __typename }";
    let hash = tandem_front_door::graphql::hash(query);
    let named = json!({"extensions": {"persistedQuery": {"version": 1, "sha256Hash": hash}}});
    for (name, port) in ports(&tandem) {
        let answer = graphql_with(port, &[], &named);
        assert_eq!(answer.message(), "PersistedQueryNotFound", "{name}");
        let mut with_text = named.clone();
        with_text["query"] = json!(query);
        for request in [&with_text, &named] {
            let answer = graphql_with(port, &[], request);
            assert_eq!(
                answer.json()["data"]["__typename"],
                "Query",
                "{name}: {answer:?}"
            );
        }
    }
}

#[test]
fn where_only_trusted_documents_run_the_folders_do_and_others_do_not() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/queries/manifest.json");
    let tandem = Tandem::builder()
        .env("TANDEM_TRUSTED_DOCUMENTS", manifest)
        .start();
    let text = std::fs::read_to_string(manifest).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let customers = manifest["operations"]
        .as_array()
        .unwrap()
        .iter()
        .find(|operation| operation["name"] == "Customers")
        .unwrap();
    let named = json!({"documentId": customers["id"], "variables": {"first": 1}});
    let answer = graphql_with(tandem.gateway, &[], &named);
    assert!(answer.json()["data"]["customers"].is_object(), "{answer:?}");
    let answer = graphql(tandem.gateway, "{__typename}", &json!({}));
    assert_eq!(answer.code(), "FORBIDDEN", "{answer:?}");
}

#[test]
fn events_go_on_and_end_as_browsers_and_proxies_want_them() {
    let tandem = Tandem::start();
    create(&tandem, "1");
    for port in [tandem.gateway, tandem.orders] {
        for document in [
            SUBSCRIPTION,
            r#"subscription{...{customerUpdated(id:"1"){id}}}"#,
            r#"subscription{...a} fragment a on Subscription{customerUpdated(id:"1"){id}}"#,
            r#"subscription{customerUpdated(id:"1"){id} customerUpdated(id:"1"){id}}"#,
        ] {
            let body = json!({"query": document}).to_string();
            let mut stream = raw::connect(port);
            let head = format!(
                "POST /graphql HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\naccept: text/event-stream\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream
                .set_read_timeout(Some(std::time::Duration::from_millis(200)))
                .unwrap();
            let mut text = String::new();
            // Changes are made until one arrives, because nothing shows when the subscription has begun.
            let client = Client::new();
            let mut round = 0;
            while !text.contains("event: next") {
                round += 1;
                assert!(round < 100, "{document}: {text}");
                client.data(
                    &tandem.accounts_url("/graphql"),
                    "mutation($n:String!){updateCustomer(id:\"1\",input:{name:{firstName:$n,lastName:\"B\"}}){customer{id}}}",
                    json!({"n": format!("{round}")}),
                );
                let mut part = [0; 4096];
                if let Ok(read) = stream.read(&mut part) {
                    text.push_str(&String::from_utf8_lossy(&part[..read]));
                }
            }
            let head = text.to_ascii_lowercase();
            assert!(
                head.contains("cache-control: no-cache") && head.contains("x-accel-buffering: no"),
                "{head}"
            );
            assert!(
                text.contains(r#"data: {"data":{"customerUpdated":{"id":"1"}}}"#),
                "{text}"
            );
        }
    }
}
