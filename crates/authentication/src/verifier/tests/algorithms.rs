//! Each algorithm with its own key, and the substitutions that a verifier must not accept.

use super::signers::{Signer, claims, issuer, verifier};
use super::*;

/// The verdict on a token that `signer` signed, if its issuer publishes `published`.
async fn said(signer: &Signer, published: Value) -> Result<Principal, Rejection> {
    let directory = tempfile::tempdir().unwrap();
    let verifier = verifier(vec![issuer(directory.path(), "a", &[published])]).await;
    verifier.verify(&signer.token(&claims("a", "7")), NOW).await
}

#[tokio::test]
async fn tokens_of_rsa_and_of_elliptic_curves_are_taken() {
    for signer in [
        Signer::rsa("k", Algorithm::RS256),
        Signer::rsa("k", Algorithm::PS256),
        Signer::p256("k"),
        Signer::ed25519("k"),
    ] {
        let named = signer.published();
        let mut unnamed = named.clone();
        unnamed.as_object_mut().unwrap().remove("alg").unwrap();
        for published in [named, unnamed] {
            let principal = said(&signer, published).await.unwrap();
            assert_eq!(&*principal.subject, "7", "{:?}", signer.algorithm);
        }
    }
}

#[tokio::test]
async fn a_key_that_names_its_algorithm_is_for_no_other_of_its_kind() {
    for (signs, names) in [
        (Algorithm::RS256, "PS256"),
        (Algorithm::PS256, "RS256"),
        (Algorithm::RS256, "RS512"),
    ] {
        let signer = Signer::rsa("k", signs);
        let mut published = signer.published();
        published["alg"] = json!(names);
        assert_eq!(
            said(&signer, published).await,
            Err(Rejection::Algorithm),
            "{signs:?} for {names}"
        );
    }
}

#[tokio::test]
async fn a_key_of_another_kind_under_the_same_id_verifies_nothing() {
    let rsa = Signer::rsa("k", Algorithm::RS256);
    assert_eq!(
        said(&rsa, Signer::p256("k").published()).await,
        Err(Rejection::Algorithm)
    );
    assert_eq!(
        said(&Signer::p256("k"), rsa.published()).await,
        Err(Rejection::Algorithm)
    );
}
