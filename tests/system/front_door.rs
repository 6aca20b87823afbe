//! The front door of all three ports: small hostile requests cost only their sender, pages of other origins reach
//! nothing, and the protocols follow their specifications exactly.

mod bounds;
mod browsers;
mod federation;
mod hostile;
mod lagging;
mod legacy;
mod limits;
mod named;
mod protocol;
mod raw;
mod slow;
mod sockets;
mod transports;

use raw::{get, graphql, graphql_with, send};
use serde_json::{Value, json};

use super::support::{Client, Tandem};

/// The three ports, by name.
fn ports(tandem: &Tandem) -> [(&'static str, u16); 3] {
    [
        ("gateway", tandem.gateway),
        ("accounts", tandem.accounts),
        ("orders", tandem.orders),
    ]
}

/// Fails unless every port still answers an honest client at once.
fn all_answer(tandem: &Tandem) {
    for (name, port) in ports(tandem) {
        let answer = graphql(port, "{__typename}", &json!({}));
        assert_eq!(
            answer.json()["data"],
            json!({"__typename": "Query"}),
            "{name}: {answer:?}"
        );
    }
}
