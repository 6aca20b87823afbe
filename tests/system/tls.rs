//! TLS on all three ports, certificates between the services, and a certificate that is replaced during operation.

use std::{path::Path, process::Command, time::Duration};

use reqwest::{Certificate, Identity, StatusCode, tls::TlsInfo};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::support::{
    Tandem,
    graph::{CREATE, PLACE, customer_input, order_input},
    poll,
};

/// An authority with one certificate for 127.0.0.1, made with OpenSSL.
struct Authority(tempfile::TempDir);

impl Authority {
    fn new() -> Self {
        let authority = Self(tempfile::tempdir().unwrap());
        authority.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=Authority",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ]);
        authority.certify();
        authority
    }

    fn path(&self, file: &str) -> String {
        self.0.path().join(file).display().to_string()
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Replaces the certificate by a new one.
    fn certify(&self) {
        let names = "subjectAltName=IP:127.0.0.1,DNS:localhost";
        std::fs::write(self.0.path().join("names"), names).unwrap();
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=Tandem",
            "-keyout",
            "new.key",
            "-out",
            "new.csr",
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            "new.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "names",
            "-out",
            "new.pem",
        ]);
        for (new, file) in [("new.pem", "tandem.pem"), ("new.key", "tandem.key")] {
            std::fs::rename(self.0.path().join(new), self.0.path().join(file)).unwrap();
        }
    }

    fn client(&self, identity: bool) -> reqwest::Client {
        let read = |file: &str| std::fs::read(self.0.path().join(file)).unwrap();
        let client = reqwest::Client::builder()
            .tls_info(true)
            // Each request uses a new connection, so that it sees the current certificate.
            .pool_max_idle_per_host(0)
            .add_root_certificate(Certificate::from_pem(&read("ca.pem")).unwrap());
        let client = if identity {
            let both = [read("tandem.key"), read("tandem.pem")].concat();
            client.identity(Identity::from_pem(&both).unwrap())
        } else {
            client
        };
        client.build().unwrap()
    }
}

fn start(authority: &Authority, is_mutual: bool) -> Tandem {
    let builder = Tandem::builder()
        .flag("--tls-certificate")
        .flag(authority.path("tandem.pem"))
        .flag("--tls-key")
        .flag(authority.path("tandem.key"));
    let builder = if is_mutual {
        builder.flag("--tls-ca").flag(authority.path("ca.pem"))
    } else {
        builder.env("SSL_CERT_FILE", authority.path("ca.pem"))
    };
    builder.start()
}

fn https(port: u16, path: &str) -> String {
    format!("https://127.0.0.1:{port}{path}")
}

async fn ask(client: &reqwest::Client, url: &str, query: &str, variables: Value) -> Value {
    let body = json!({"query": query, "variables": variables});
    let answer = client.post(url).json(&body).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    assert!(answer["errors"].is_null(), "{answer:#}");
    answer["data"].clone()
}

/// A customer with an order, through the gateway, and the order in a subscription.
async fn whole_path(client: &reqwest::Client, gateway: &str) {
    let input = customer_input("1", "Lovelace");
    ask(client, gateway, CREATE, json!({"input": input})).await;
    let query = "subscription { orderUpdated(customerId: \"1\") { type order { id } } }";
    let mut live = client
        .post(gateway)
        .header("accept", "text/event-stream")
        .json(&json!({"query": query}))
        .send()
        .await
        .unwrap();
    assert_eq!(live.status(), StatusCode::OK);
    let mut seen = String::new();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !seen.contains("orderUpdated") {
        assert!(tokio::time::Instant::now() < deadline, "{seen}");
        // It is not known when the subscription begins, so orders are placed until one arrives.
        ask(client, gateway, PLACE, json!({"input": order_input("1")})).await;
        let chunk = tokio::time::timeout(Duration::from_millis(500), live.chunk()).await;
        if let Ok(chunk) = chunk {
            let chunk = chunk.unwrap().expect("the subscription goes on");
            seen.push_str(&String::from_utf8_lossy(&chunk));
        }
    }
}

#[test]
fn the_whole_path_runs_over_tls_and_services_answer_their_own_parts_alone() {
    let authority = Authority::new();
    let tandem = start(&authority, true);
    let runtime = Runtime::new().unwrap();
    let (anybody, part) = (authority.client(false), authority.client(true));
    runtime.block_on(async {
        // The gateway accepts clients without a certificate.
        whole_path(&anybody, &https(tandem.gateway, "/graphql")).await;
        let in_clear = reqwest::get(tandem.gateway_url("/actuator/health")).await;
        assert!(in_clear.is_err());
        for port in [tandem.accounts, tandem.orders] {
            let status = async |client: &reqwest::Client, path: &str| {
                client.get(https(port, path)).send().await.unwrap().status()
            };
            assert_eq!(status(&anybody, "/graphql").await, StatusCode::FORBIDDEN);
            assert_eq!(
                status(&anybody, "/admin/dead-letters").await,
                StatusCode::FORBIDDEN
            );
            assert_eq!(
                status(&anybody, "/actuator/health/readiness").await,
                StatusCode::OK
            );
            assert_ne!(
                status(&part, "/graphql?query=%7B__typename%7D").await,
                StatusCode::FORBIDDEN
            );
        }
    });
    // A certificate from another authority is not accepted.
    let stranger = Authority::new();
    let both = ["tandem.key", "tandem.pem"].map(|file| std::fs::read(stranger.path(file)).unwrap());
    let client = reqwest::Client::builder()
        .add_root_certificate(
            Certificate::from_pem(&std::fs::read(authority.path("ca.pem")).unwrap()).unwrap(),
        )
        .identity(Identity::from_pem(&both.concat()).unwrap())
        .build()
        .unwrap();
    let answer = runtime.block_on(client.get(https(tandem.accounts, "/actuator/info")).send());
    assert!(answer.is_err(), "{answer:?}");
    // An operator's command presents the system's certificate.
    let told = tandem.operated(&[
        "rebuild",
        "orders",
        "--orders-url",
        &https(tandem.orders, ""),
        "--tls-ca",
        &authority.path("ca.pem"),
        "--tls-certificate",
        &authority.path("tandem.pem"),
        "--tls-key",
        &authority.path("tandem.key"),
    ]);
    assert!(told.contains(" 0 removed"), "{told}");
}

#[test]
fn a_certificate_that_is_replaced_is_served_without_a_restart_and_a_broken_one_is_not() {
    let authority = Authority::new();
    let tandem = start(&authority, true);
    let runtime = Runtime::new().unwrap();
    let served = |port: u16| {
        let client = authority.client(false);
        runtime.block_on(async {
            let answer = client
                .get(https(port, "/actuator/health/liveness"))
                .send()
                .await
                .unwrap();
            let info = answer.extensions().get::<TlsInfo>().unwrap();
            info.peer_certificate().unwrap().to_vec()
        })
    };
    let ports = [tandem.gateway, tandem.accounts, tandem.orders];
    let before = ports.map(served);
    authority.certify();
    for (port, before) in ports.into_iter().zip(before) {
        poll("the new certificate is served", || {
            (served(port) != before).then_some(())
        });
    }
    let good = ports.map(served);
    std::fs::write(authority.path("tandem.pem"), "no certificate").unwrap();
    tandem.process_says_in_log("cannot be used; the last one stays");
    assert_eq!(ports.map(served), good);
}

#[test]
fn files_that_do_not_fit_are_told_at_the_start() {
    let (authority, other) = (Authority::new(), Authority::new());
    let mut tandem = Tandem::builder()
        .flag("--tls-certificate")
        .flag(authority.path("tandem.pem"))
        .flag("--tls-key")
        .flag(other.path("tandem.key"))
        .spawn();
    let status = tandem.process.wait_for_end(Duration::from_secs(60));
    assert!(!status.success());
    let (output, errors) = tandem.process.all_output();
    let said = output + &errors;
    assert!(said.contains("do not fit"), "{said}");
    assert!(Path::new(&authority.path("ca.pem")).exists());
}
