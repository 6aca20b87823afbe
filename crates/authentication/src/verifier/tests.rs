#![allow(clippy::unwrap_used, clippy::expect_used)]

mod algorithms;
mod issuers;
mod kinds;
mod reloads;
mod signers;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::*;
use crate::development::DevelopmentKey;
use crate::scope::Scope;
use crate::source::KeySource;

const NOW: u64 = 1_800_000_000;

struct Fixture {
    _directory: tempfile::TempDir,
    key: DevelopmentKey,
    private: EncodingKey,
    id: String,
    verifier: Verifier,
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = DevelopmentKey::open_or_make(directory.path()).unwrap();
        let pem = std::fs::read_to_string(directory.path().join("development-key.pem")).unwrap();
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = base64::engine::general_purpose::STANDARD
            .decode(body)
            .unwrap();
        let keys: Value =
            serde_json::from_slice(&std::fs::read(key.public_keys()).unwrap()).unwrap();
        let verifier = Verifier::start(
            vec![Issuer {
                name: DevelopmentKey::ISSUER.to_owned(),
                keys: KeySource::File(key.public_keys().to_owned()),
            }],
            vec![DevelopmentKey::AUDIENCE.to_owned()],
            Duration::from_secs(30),
            CancellationToken::new(),
        )
        .await
        .unwrap();
        Self {
            id: keys["keys"][0]["kid"].as_str().unwrap().to_owned(),
            private: EncodingKey::from_ed_der(&der),
            key,
            verifier,
            _directory: directory,
        }
    }

    fn claims() -> Value {
        json!({"iss": DevelopmentKey::ISSUER, "aud": DevelopmentKey::AUDIENCE, "sub": "ada", "scope": "orders:read self", "exp": NOW + 60})
    }

    fn signed(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.id.clone());
        encode(&header, claims, &self.private).unwrap()
    }

    async fn with(&self, name: &str, value: Value) -> Result<Principal, Rejection> {
        let mut claims = Self::claims();
        claims[name] = value;
        self.verifier.verify(&self.signed(&claims), NOW).await
    }
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(header), part(claims))
}

#[tokio::test]
async fn a_good_token_says_who_and_what() {
    let fixture = Fixture::new().await;
    let token = fixture
        .key
        .token(
            "ada",
            [Scope::OrdersRead, Scope::Own].into_iter().collect(),
            NOW,
            60,
        )
        .unwrap();
    // The second time the token is in the cache.
    for _ in 0..2 {
        let principal = fixture.verifier.verify(&token, NOW).await.unwrap();
        assert_eq!(&*principal.subject, "ada");
        assert!(principal.has(Scope::OrdersRead) && principal.is_customer("ada"));
        assert!(!principal.has(Scope::CustomersRead));
        assert_eq!(principal.expires_at, NOW + 60);
    }
}

#[tokio::test]
async fn a_token_ends_when_it_says_also_where_it_is_known() {
    let fixture = Fixture::new().await;
    let token = fixture.signed(&Fixture::claims());
    // Clocks may differ by 30 s.
    for (now, expected) in [
        (0, Ok(())),
        (89, Ok(())),
        (90, Err(Rejection::Expired)),
        (0, Ok(())),
    ] {
        let got = fixture.verifier.verify(&token, NOW + now).await.map(drop);
        assert_eq!(got, expected, "after {now} s");
    }
    assert_eq!(
        fixture.with("nbf", json!(NOW + 31)).await,
        Err(Rejection::NotYetValid)
    );
    assert!(fixture.with("nbf", json!(NOW + 30)).await.is_ok());
    assert_eq!(
        fixture.with("exp", Value::Null).await,
        Err(Rejection::Expired)
    );
    assert_eq!(
        fixture.with("exp", json!(-1)).await,
        Err(Rejection::Expired)
    );
    assert!(fixture.with("exp", json!(1.0e300)).await.is_ok());
}

#[tokio::test]
async fn a_token_from_or_for_somebody_else_is_refused() {
    let fixture = Fixture::new().await;
    for iss in [json!("other"), Value::Null, json!("")] {
        assert_eq!(fixture.with("iss", iss).await, Err(Rejection::Issuer));
    }
    for aud in [json!("other"), json!([]), json!(["a", "b"]), Value::Null] {
        assert_eq!(fixture.with("aud", aud).await, Err(Rejection::Audience));
    }
    assert!(
        fixture
            .with("aud", json!(["a", DevelopmentKey::AUDIENCE]))
            .await
            .is_ok()
    );
    for sub in [
        json!(""),
        Value::Null,
        json!("a\nb"),
        json!("x".repeat(201)),
    ] {
        assert_eq!(fixture.with("sub", sub).await, Err(Rejection::Subject));
    }
    let no_scope = fixture.with("scope", Value::Null).await.unwrap();
    assert_eq!(no_scope.scopes, Scopes::default());
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let fixture = Fixture::new().await;
    let claims = Fixture::claims();
    let refused = async |token: String| fixture.verifier.verify(&token, NOW).await.unwrap_err();

    for none in ["none", "None", "NONE", ""] {
        let header = json!({"alg": none, "kid": fixture.id});
        assert_eq!(
            refused(unsigned(&header, &claims)).await,
            Rejection::Malformed
        );
    }
    // The public key is used as the secret of a symmetric signature.
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some(fixture.id.clone());
    let public = std::fs::read(fixture.key.public_keys()).unwrap();
    let confused = encode(&header, &claims, &EncodingKey::from_secret(&public)).unwrap();
    assert_eq!(refused(confused).await, Rejection::Algorithm);
    // A forger's key: first with its own id, then under the header of a valid token.
    let other = tempfile::tempdir().unwrap();
    let forger = DevelopmentKey::open_or_make(other.path()).unwrap();
    let forged = forger.token("ada", Scopes::default(), NOW, 60).unwrap();
    assert_eq!(refused(forged.clone()).await, Rejection::UnknownKey);
    let parts: Vec<&str> = forged.split('.').collect();
    let good = fixture.signed(&claims);
    let signature = good.rsplit('.').next().unwrap();
    let header = good.split('.').next().unwrap();
    assert_eq!(
        refused(format!("{header}.{}.{}", parts[1], parts[2])).await,
        Rejection::Signature
    );
    // The claims are changed and the signature is not.
    let mut raised = claims.clone();
    raised["scope"] = json!("operations");
    let raised = URL_SAFE_NO_PAD.encode(raised.to_string());
    assert_eq!(
        refused(format!("{header}.{raised}.{signature}")).await,
        Rejection::Signature
    );
    // An extension that must be understood and is not.
    let mut critical = Header::new(Algorithm::EdDSA);
    critical.kid = Some(fixture.id.clone());
    critical.crit = Some(vec!["exp".to_owned()]);
    let critical = encode(&critical, &claims, &fixture.private).unwrap();
    assert_eq!(refused(critical).await, Rejection::Critical);

    for nonsense in [
        "",
        ".",
        "..",
        "a.b.c",
        &good[1..],
        &format!("{good}.x"),
        &"a".repeat(9000),
    ] {
        assert_eq!(
            refused(nonsense.to_owned()).await,
            Rejection::Malformed,
            "{nonsense:.40}"
        );
    }
    assert!(fixture.verifier.verify(&good, NOW).await.is_ok());
}

#[tokio::test]
async fn unknown_keys_read_the_source_again_at_a_bounded_rate_and_known_ones_stay_while_it_is_away()
{
    let directory = tempfile::tempdir().unwrap();
    let key = DevelopmentKey::open_or_make(directory.path()).unwrap();
    let document = std::fs::read_to_string(key.public_keys()).unwrap();
    let served = Arc::new(Mutex::new(Some(document)));
    let asked = Arc::new(AtomicUsize::new(0));
    let (from, count) = (Arc::clone(&served), Arc::clone(&asked));
    let app = Router::new().route(
        "/keys",
        get(move || {
            count.fetch_add(1, Ordering::SeqCst);
            let document = from.lock().unwrap().clone();
            async move { document.ok_or(StatusCode::SERVICE_UNAVAILABLE) }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });

    let verifier = Verifier::start(
        vec![Issuer {
            name: DevelopmentKey::ISSUER.to_owned(),
            keys: url.parse().unwrap(),
        }],
        vec![DevelopmentKey::AUDIENCE.to_owned()],
        Duration::ZERO,
        CancellationToken::new(),
    )
    .await
    .unwrap();
    *served.lock().unwrap() = None;
    let other = tempfile::tempdir().unwrap();
    let strange = DevelopmentKey::open_or_make(other.path()).unwrap();
    for subject in 0..50 {
        let token = strange
            .token(&subject.to_string(), Scopes::default(), NOW, 60)
            .unwrap();
        assert_eq!(
            verifier.verify(&token, NOW).await,
            Err(Rejection::UnknownKey)
        );
    }
    // Once at the start, and once for the first unknown key.
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let good = key.token("ada", Scopes::default(), NOW, 60).unwrap();
    assert!(verifier.verify(&good, NOW).await.is_ok());
}

#[tokio::test]
async fn while_keys_were_never_had_a_token_is_neither_good_nor_bad() {
    let directory = tempfile::tempdir().unwrap();
    let key = DevelopmentKey::open_or_make(directory.path()).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let verifier = Verifier::start(
        vec![Issuer {
            name: DevelopmentKey::ISSUER.to_owned(),
            keys: format!("http://127.0.0.1:{port}/").parse().unwrap(),
        }],
        vec![DevelopmentKey::AUDIENCE.to_owned()],
        Duration::ZERO,
        CancellationToken::new(),
    )
    .await
    .unwrap();
    let token = key.token("ada", Scopes::default(), NOW, 60).unwrap();
    assert_eq!(
        verifier.verify(&token, NOW).await,
        Err(Rejection::KeysUnavailable)
    );
}

#[tokio::test]
async fn a_token_that_was_verified_is_remembered_and_no_other() {
    let fixture = Fixture::new().await;
    let now = seconds_since_1970();
    let token = |begin: u64| {
        let scopes = [Scope::OrdersRead].into_iter().collect();
        fixture.key.token("ada", scopes, begin, 60).unwrap()
    };
    let good = token(now);
    assert_eq!(fixture.verifier.remembered(&good), None);
    let principal = fixture.verifier.verify_now(&good).await.unwrap();
    assert_eq!(fixture.verifier.remembered(&good), Some(principal.clone()));
    assert_eq!(
        fixture.verifier.good_until(&principal),
        principal.expires_at + 30
    );

    let expired = token(now - 3_600);
    fixture
        .verifier
        .verify(&expired, now - 3_600)
        .await
        .unwrap();
    assert_eq!(fixture.verifier.remembered(&expired), None);
    assert_eq!(fixture.verifier.remembered("nonsense"), None);
}
