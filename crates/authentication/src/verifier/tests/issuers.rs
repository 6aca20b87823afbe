//! Several issuers side by side: each one is trusted only with its own keys and for its own subjects.

use super::signers::{Signer, claims, issuer, verifier};
use super::*;

#[tokio::test]
async fn a_key_of_one_issuer_signs_nothing_for_another() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (Signer::ed25519("same"), Signer::ed25519("same"));
    let only_b = Signer::ed25519("only-b");
    let verifier = verifier(vec![
        issuer(directory.path(), "a", &[a.published()]),
        issuer(directory.path(), "b", &[b.published(), only_b.published()]),
    ])
    .await;
    for (signer, named, expected) in [
        (&a, "a", None),
        (&b, "b", None),
        (&only_b, "b", None),
        // Different issuers may use the same key id.
        (&a, "b", Some(Rejection::Signature)),
        (&b, "a", Some(Rejection::Signature)),
        (&only_b, "a", Some(Rejection::UnknownKey)),
        (&a, "c", Some(Rejection::Issuer)),
    ] {
        let token = signer.token(&claims(named, "7"));
        assert_eq!(
            verifier.verify(&token, NOW).await.err(),
            expected,
            "{} as {named}",
            signer.id
        );
    }
}

#[tokio::test]
async fn a_subject_is_a_customer_of_the_first_issuer_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (Signer::ed25519("a"), Signer::ed25519("b"));
    let verifier = verifier(vec![
        issuer(directory.path(), "a", &[a.published()]),
        issuer(directory.path(), "b", &[b.published()]),
    ])
    .await;
    let token = a.token(&claims("a", "7"));
    let of_a = verifier.verify(&token, NOW).await.unwrap();
    assert!(of_a.is_customer("7"));
    let token = b.token(&claims("b", "7"));
    // The second time the token is in the cache.
    for _ in 0..2 {
        let of_b = verifier.verify(&token, NOW).await.unwrap();
        assert_eq!(&*of_b.subject, "b|7");
        assert!(!of_b.is_customer("7"));
        assert!(of_b.has(Scope::OrdersRead));
    }
    let claimed = a.token(&claims("a", "b|7"));
    assert_eq!(
        verifier.verify(&claimed, NOW).await,
        Err(Rejection::ReservedSubject)
    );
}

#[tokio::test]
async fn nobody_is_who_has_no_token() {
    let directory = tempfile::tempdir().unwrap();
    let signer = Signer::ed25519("a");
    let verifier = verifier(vec![issuer(directory.path(), "a", &[signer.published()])]).await;
    for reserved in ["anonymous", "legacy-rest"] {
        let refused = verifier
            .verify(&signer.token(&claims("a", reserved)), NOW)
            .await
            .unwrap_err();
        assert_eq!(refused, Rejection::ReservedSubject);
        assert!(refused.to_string().contains(reserved), "{refused}");
    }
}
