//! The collection of REST requests (`queries/postman/`): it contains every documented route, the file for editors has
//! the same requests, and every request gets the described response.

use std::collections::BTreeSet;

use serde_json::Value;

use super::support::{Client, Tandem, poll};

const COLLECTION: &str = include_str!("../../queries/postman/tandem-rest.postman_collection.json");
const FOR_EDITORS: &str = include_str!("../../queries/postman/tandem-rest.http");

#[derive(Debug, PartialEq)]
struct Request {
    /// The folder, which names the port.
    port: String,
    name: String,
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
    status: u16,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn of_the_collection() -> Vec<Request> {
    let collection: Value = serde_json::from_str(COLLECTION).unwrap();
    let mut requests = Vec::new();
    for folder in collection["item"].as_array().unwrap() {
        for item in folder["item"].as_array().unwrap() {
            let request = &item["request"];
            let script = item["event"][0]["script"]["exec"].to_string();
            let (_, status) = script.split_once("to.have.status(").unwrap();
            requests.push(Request {
                port: text(&folder["name"]),
                name: text(&item["name"]),
                method: text(&request["method"]),
                url: text(&request["url"]["raw"]),
                headers: request["header"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|header| (text(&header["key"]), text(&header["value"])))
                    .collect(),
                body: request["body"]["raw"].as_str().map(str::to_owned),
                status: status.split(')').next().unwrap().parse().unwrap(),
            });
        }
    }
    requests
}

fn for_editors() -> Vec<Request> {
    FOR_EDITORS
        .split("\n### ")
        .skip(1)
        .map(|block| {
            let (head, body) = match block.trim_end().split_once("\n\n") {
                Some((head, body)) => (head, Some(body.to_owned())),
                None => (block.trim_end(), None),
            };
            let mut lines = head.lines();
            let (title, status) = lines.next().unwrap().rsplit_once(", ").unwrap();
            let (port, name) = title.split_once(": ").unwrap();
            let (method, url) = lines.next().unwrap().split_once(' ').unwrap();
            Request {
                port: port.to_owned(),
                name: name.to_owned(),
                method: method.to_owned(),
                url: url.to_owned(),
                headers: lines
                    .map(|line| {
                        let (name, value) = line.split_once(": ").unwrap();
                        (name.to_owned(), value.to_owned())
                    })
                    .collect(),
                body,
                status: status.parse().unwrap(),
            }
        })
        .collect()
}

#[test]
fn the_collection_and_the_file_for_editors_say_the_same() {
    assert_eq!(for_editors(), of_the_collection());
}

#[test]
fn the_collection_has_each_documented_route_on_its_service_and_on_the_gateway_and_no_other() {
    let mut documented = BTreeSet::new();
    for (service, document) in [
        ("accounts", tandem_accounts::rest::openapi()),
        ("orders", tandem_orders::rest::description()),
    ] {
        let document = serde_json::to_value(document).unwrap();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                assert_eq!(operation["deprecated"], true, "{path}");
                for port in [service, "gateway"] {
                    documented.insert((port.to_owned(), method.to_uppercase(), path.clone()));
                }
            }
        }
    }
    let requested: BTreeSet<_> = of_the_collection()
        .into_iter()
        .filter(|request| !request.url.contains("/actuator/"))
        .map(|request| {
            let path = request.url.split_once("}}").unwrap().1.to_owned();
            let path = match path.strip_prefix("/orders/order/") {
                Some(_) => "/orders/order/{customerId}".to_owned(),
                None => path,
            };
            (request.port, request.method, path)
        })
        .collect();
    assert_eq!(requested, documented);
}

#[test]
fn every_request_of_the_collection_is_answered_as_it_says() {
    let tandem = Tandem::start();
    let client = Client::new();
    for request in of_the_collection() {
        let url =
            ["accounts", "orders", "gateway"]
                .into_iter()
                .fold(request.url.clone(), |url, port| {
                    let base = match port {
                        "accounts" => tandem.accounts_url(""),
                        "orders" => tandem.orders_url(""),
                        _ => tandem.gateway_url(""),
                    };
                    url.replace(&format!("{{{{{port}}}}}"), &base)
                });
        // What orders shows of a customer arrives there by an event.
        poll(&format!("{} {}", request.port, request.name), || {
            let answer = match (request.method.as_str(), &request.body) {
                ("GET", None) => client.get(&url),
                ("POST", Some(body)) => {
                    let [(name, kind)] = &request.headers[..] else {
                        panic!("{request:?}")
                    };
                    assert_eq!(name, "content-type");
                    client.post(&url, kind, body.clone())
                }
                _ => panic!("{request:?}"),
            };
            (answer.status == request.status).then_some(())
        });
    }
}
