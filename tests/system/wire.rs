//! What an older client depends on: writes are sent at once, documents have their length, and HEAD works wherever GET
//! does.

use serde_json::json;

use super::support::{Client, Tandem, Transport, poll};

const BOTH: &str = "query($id: ID!) { customer(id: $id) { id orders { nodes { id } } } }";
const WATCH: &str = "subscription($id: ID!) { customerUpdated(id: $id) { id } }";

/// A system with a customer who has an order.
fn with_a_customer(client: &Client) -> Tandem {
    let tandem = Tandem::start();
    tandem.customer(client, "123456");
    tandem.order(client, "123456");
    tandem
}

/// Nagle's algorithm holds a small write back until the previous one is acknowledged, and acknowledgements are delayed.
#[cfg(target_os = "linux")]
#[test]
fn no_process_holds_a_small_write_back() {
    let client = Client::new();
    let tandem = with_a_customer(&client);
    let of_the_router_to_services = || -> Vec<sockets::Connection> {
        let mut connections = sockets::connections(tandem.child("router").unwrap());
        connections.retain(|it| [tandem.accounts, tandem.orders].contains(&it.peer_port));
        connections
    };
    // Until here the router has called the services only by HTTP. The connections that subscriptions add are
    // WebSockets.
    let by_http = of_the_router_to_services();
    let watching: Vec<_> = [
        (tandem.gateway_url("/graphql"), Transport::WebSocket),
        (tandem.gateway_url("/graphql"), Transport::ServerSentEvents),
        (tandem.orders_url("/graphql/ws"), Transport::WebSocket),
    ]
    .into_iter()
    .map(|(url, transport)| client.subscribe(transport, &url, WATCH, json!({"id": "123456"})))
    .collect();
    poll(
        "orders has its own subscription and one of the router",
        || {
            let scrape = client.try_get(&tandem.orders_url("/actuator/prometheus"))?;
            let open: f64 = scrape
                .body
                .lines()
                .filter(|line| line.starts_with("front_door_subscriptions"))
                .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
                .sum();
            (open > 1.5).then_some(())
        },
    );
    let mut web_sockets = of_the_router_to_services();
    web_sockets.retain(|new| by_http.iter().all(|old| old.own_port != new.own_port));
    assert!(
        web_sockets.iter().any(|it| it.peer_port == tandem.orders),
        "subscriptions came to orders without a new connection"
    );
    for url in [
        tandem.gateway_url("/accounts/customer/print"),
        tandem.gateway_url("/orders/order/123456"),
        tandem.orders_url("/orders/list"),
        tandem.accounts_url("/actuator/prometheus"),
        tandem.gateway_url("/actuator/prometheus"),
    ] {
        assert_eq!(client.get(&url).status, 200, "{url}");
    }
    client.data(
        &tandem.gateway_url("/graphql"),
        BOTH,
        json!({"id": "123456"}),
    );
    for service in ["broker", "accounts", "orders", "router"] {
        let connections = sockets::connections(tandem.child(service).unwrap());
        let listens_on = [
            tandem.broker,
            tandem.accounts,
            tandem.orders,
            tandem.gateway,
        ];
        let accepted = connections
            .iter()
            .filter(|connection| listens_on.contains(&connection.own_port));
        assert!(accepted.count() > 0, "{service} has accepted nothing");
        for connection in &connections {
            // The router's own HTTP client cannot be configured (docs/upstream.md). It passes each request to the
            // system in one piece, and Linux holds none of that back (Minshall's variant: only while an earlier piece
            // smaller than a segment is in flight). Its WebSockets carry small messages one after the other, so they
            // get no exception.
            let is_http_of_the_router = service == "router"
                && [tandem.accounts, tandem.orders].contains(&connection.peer_port)
                && web_sockets
                    .iter()
                    .all(|it| it.own_port != connection.own_port);
            assert!(
                connection.sends_at_once || is_http_of_the_router,
                "{service}: {connection:?}"
            );
        }
    }
    drop(watching);
}

#[test]
fn documents_have_their_length_and_media_type_and_head_tells_both() {
    let client = Client::new();
    let tandem = with_a_customer(&client);
    for (url, media_type, status) in [
        (
            tandem.accounts_url("/accounts/customer/print"),
            "application/json",
            200,
        ),
        (
            tandem.gateway_url("/accounts/customer/print"),
            "application/json",
            200,
        ),
        (
            tandem.orders_url("/orders/order/123456"),
            "application/json",
            200,
        ),
        (
            tandem.gateway_url("/orders/order/123456"),
            "application/json",
            200,
        ),
        (
            tandem.orders_url("/orders/order/nobody"),
            "text/plain; charset=utf-8",
            404,
        ),
        (
            tandem.gateway_url("/orders/order/nobody"),
            "text/plain; charset=utf-8",
            404,
        ),
        (
            tandem.accounts_url("/openapi.json"),
            "application/json",
            200,
        ),
        (tandem.orders_url("/v3/api-docs"), "application/json", 200),
        (
            tandem.accounts_url("/swagger-ui/index.html"),
            "text/html",
            200,
        ),
        (
            tandem.accounts_url("/actuator/info"),
            "application/vnd.spring-boot.actuator.v3+json",
            200,
        ),
        (
            tandem.gateway_url("/actuator/info"),
            "application/vnd.spring-boot.actuator.v3+json",
            200,
        ),
    ] {
        let (head, get) = (client.head(&url), client.get(&url));
        for answer in [&head, &get] {
            assert_eq!(answer.status, status, "{url}");
            assert_eq!(answer.content_type, media_type, "{url}");
            assert_eq!(answer.content_length, Some(get.body.len() as u64), "{url}");
        }
        assert!(head.body.is_empty(), "{url}");
        assert!(!get.body.is_empty(), "{url}");
    }
    for url in [
        tandem.orders_url("/orders/list"),
        tandem.gateway_url("/orders/list"),
    ] {
        let list = client.get(&url);
        assert_eq!(
            (list.content_type.as_str(), list.content_length),
            ("application/json", None)
        );
        assert_eq!(
            list.json()[0]["orders"].as_array().unwrap().len(),
            1,
            "{url}"
        );
        assert_eq!(client.head(&url).status, 200, "{url}");
    }
}

#[cfg(target_os = "linux")]
mod sockets {
    use std::{fs, net::SocketAddr, os::fd::OwnedFd};

    use rustix::{
        net::{SocketType, getpeername, getsockname, sockopt},
        process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
    };

    /// A TCP connection of a process.
    #[derive(Debug)]
    pub(super) struct Connection {
        pub(super) own_port: u16,
        pub(super) peer_port: u16,
        pub(super) sends_at_once: bool,
    }

    /// All current connections of a process.
    pub(super) fn connections(process: u32) -> Vec<Connection> {
        let pid = Pid::from_raw(process.try_into().unwrap()).unwrap();
        let handle = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        fs::read_dir(format!("/proc/{process}/fd"))
            .unwrap()
            .filter_map(|entry| {
                let entry = entry.unwrap();
                // It may have been closed meanwhile.
                let target = fs::read_link(entry.path()).ok()?;
                if !target.to_string_lossy().starts_with("socket:") {
                    return None;
                }
                let number = entry.file_name().to_string_lossy().parse().unwrap();
                match pidfd_getfd(&handle, number, PidfdGetfdFlags::empty()) {
                    Ok(socket) => connection(&socket),
                    Err(rustix::io::Errno::BADF) => None,
                    Err(error) => {
                        panic!("a socket of another process cannot be looked at: {error}")
                    }
                }
            })
            .collect()
    }

    /// `None` for sockets of another kind and for listening sockets.
    fn connection(socket: &OwnedFd) -> Option<Connection> {
        if sockopt::socket_type(socket).ok()? != SocketType::STREAM {
            return None;
        }
        let own: SocketAddr = getsockname(socket).ok()?.try_into().ok()?;
        let peer: SocketAddr = getpeername(socket).ok()??.try_into().ok()?;
        Some(Connection {
            own_port: own.port(),
            peer_port: peer.port(),
            sends_at_once: sockopt::tcp_nodelay(socket).unwrap(),
        })
    }
}
