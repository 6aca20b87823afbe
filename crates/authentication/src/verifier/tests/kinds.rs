//! The kinds of tokens: an ID token says who has signed in and is not accepted as an access token.

use super::signers::{Signer, claims, issuer, verifier};
use super::*;

#[tokio::test]
async fn only_access_tokens_are_taken() {
    let directory = tempfile::tempdir().unwrap();
    let signer = Signer::ed25519("k");
    let verifier = verifier(vec![issuer(directory.path(), "a", &[signer.published()])]).await;
    let said = async |kind: Option<&str>, used: Value| {
        let mut claims = claims("a", "7");
        claims["token_use"] = used;
        let token = signer.token_of_type(kind, &claims);
        verifier.verify(&token, NOW).await.map(drop)
    };
    for kind in [
        None,
        Some("JWT"),
        Some("jwt"),
        Some("at+jwt"),
        Some("application/at+JWT"),
    ] {
        for used in [Value::Null, json!("access")] {
            assert_eq!(said(kind, used).await, Ok(()), "{kind:?}");
        }
        for used in ["id", "refresh"] {
            assert_eq!(
                said(kind, json!(used)).await,
                Err(Rejection::NoAccessToken),
                "{kind:?} {used}"
            );
        }
    }
    for kind in [
        "id+jwt",
        "logout+jwt",
        "dpop+jwt",
        "secevent+jwt",
        "JWE",
        "",
    ] {
        assert_eq!(
            said(Some(kind), Value::Null).await,
            Err(Rejection::NoAccessToken),
            "{kind}"
        );
    }
}
