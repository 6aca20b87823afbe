//! Keys that are read again: new ones, withdrawn ones, the same ones, and a host that does not answer.

use std::sync::atomic::AtomicBool;

use super::signers::{Signer, claims, key_set, verifier};
use super::*;

/// An issuer that publishes its keys at a URL.
struct Host {
    document: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    hangs: Arc<AtomicBool>,
    url: String,
}

impl Host {
    async fn of(keys: &[&Signer]) -> Self {
        let document = Arc::new(Mutex::new(String::new()));
        let asked = Arc::new(AtomicUsize::new(0));
        let hangs = Arc::new(AtomicBool::new(false));
        let (from, count) = (Arc::clone(&document), Arc::clone(&asked));
        let stuck = Arc::clone(&hangs);
        let app = Router::new().route(
            "/keys",
            get(move || {
                count.fetch_add(1, Ordering::SeqCst);
                let document = from.lock().unwrap().clone();
                let hangs = stuck.load(Ordering::SeqCst);
                async move {
                    if hangs {
                        std::future::pending::<()>().await;
                    }
                    document
                }
            }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let host = Self {
            document,
            asked,
            hangs,
            url,
        };
        host.publish(keys);
        host
    }

    fn publish(&self, keys: &[&Signer]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.published()).collect();
        *self.document.lock().unwrap() = key_set(&keys);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn verifier(&self) -> Verifier {
        verifier(vec![Issuer {
            name: "a".to_owned(),
            keys: self.url.parse().unwrap(),
        }])
        .await
    }
}

/// Reads the keys again, as the verifier does every few minutes.
async fn reload(verifier: &Verifier) {
    for issuer in &verifier.0.issuers {
        issuer.keys.load().await.unwrap();
    }
}

/// A token that is valid now.
fn fresh(signer: &Signer) -> String {
    let mut claims = claims("a", "7");
    claims["exp"] = json!(seconds_since_1970() + 60);
    signer.token(&claims)
}

#[tokio::test]
async fn a_new_key_is_had_when_a_token_names_it() {
    let (old, new) = (Signer::ed25519("old"), Signer::ed25519("new"));
    let host = Host::of(&[&old]).await;
    let verifier = host.verifier().await;
    host.publish(&[&old, &new]);
    for signer in [&new, &old] {
        assert!(verifier.verify_now(&fresh(signer)).await.is_ok());
    }
    assert_eq!(host.asked(), 2);
}

#[tokio::test]
async fn a_token_of_a_withdrawn_key_is_refused_although_it_was_verified_before() {
    let (kept, withdrawn) = (Signer::ed25519("kept"), Signer::ed25519("withdrawn"));
    let host = Host::of(&[&kept, &withdrawn]).await;
    let verifier = host.verifier().await;
    let (good, bad) = (fresh(&kept), fresh(&withdrawn));
    for token in [&good, &bad] {
        assert!(verifier.verify_now(token).await.is_ok());
        assert!(verifier.remembered(token).is_some());
    }
    host.publish(&[&kept]);
    reload(&verifier).await;
    assert_eq!(verifier.remembered(&bad), None);
    assert_eq!(verifier.verify_now(&bad).await, Err(Rejection::UnknownKey));
    assert!(verifier.verify_now(&good).await.is_ok());
}

#[tokio::test]
async fn a_key_that_was_replaced_under_its_id_is_good_no_more() {
    let (old, new) = (Signer::ed25519("k"), Signer::ed25519("k"));
    let host = Host::of(&[&old]).await;
    let verifier = host.verifier().await;
    let token = fresh(&old);
    assert!(verifier.verify_now(&token).await.is_ok());
    host.publish(&[&new]);
    reload(&verifier).await;
    assert_eq!(verifier.verify_now(&token).await, Err(Rejection::Signature));
}

#[tokio::test]
async fn what_was_verified_is_remembered_while_the_keys_are_the_same() {
    let signer = Signer::ed25519("k");
    let host = Host::of(&[&signer]).await;
    let verifier = host.verifier().await;
    let good = fresh(&signer);
    assert!(verifier.verify_now(&good).await.is_ok());
    let strange = fresh(&Signer::ed25519("strange"));
    assert_eq!(
        verifier.verify_now(&strange).await,
        Err(Rejection::UnknownKey)
    );
    assert_eq!(host.asked(), 2, "the strange key had them read again");
    assert!(verifier.remembered(&good).is_some());
    reload(&verifier).await;
    assert!(verifier.remembered(&good).is_some());
}

#[tokio::test]
async fn one_waits_for_a_host_that_hangs_and_others_are_told_to_ask_again() {
    let signer = Signer::ed25519("k");
    let host = Host::of(&[&signer]).await;
    let verifier = host.verifier().await;
    host.hangs.store(true, Ordering::SeqCst);
    let strange = |number: usize| fresh(&Signer::ed25519(&format!("strange-{number}")));
    let (first, its_verifier) = (strange(0), verifier.clone());
    let waits = tokio::spawn(async move { its_verifier.verify_now(&first).await });
    while host.asked() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let all = async {
        for number in 1..20 {
            assert_eq!(
                verifier.verify_now(&strange(number)).await,
                Err(Rejection::KeysUnavailable)
            );
        }
        // Tokens with a known key are not affected.
        assert!(verifier.verify_now(&fresh(&signer)).await.is_ok());
    };
    tokio::time::timeout(Duration::from_secs(3), all)
        .await
        .unwrap();
    assert!(!waits.is_finished(), "the first one still waits");
    assert_eq!(host.asked(), 2);
    waits.abort();
}
