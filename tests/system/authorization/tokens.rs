//! Good and bad tokens of every kind, made with the development key of a running system.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tandem_authentication::DevelopmentKey;

/// The issuer of the tokens of a system that was started with `--auth`.
pub struct Issuer {
    key: EncodingKey,
    public_keys: String,
    id: String,
}

impl Issuer {
    pub fn of(data_directory: &Path) -> Self {
        let directory = data_directory.join(DevelopmentKey::DIRECTORY);
        let pem = std::fs::read(directory.join("development-key.pem")).unwrap();
        let public_keys =
            std::fs::read_to_string(DevelopmentKey::open(&directory).unwrap().public_keys())
                .unwrap();
        let keys: Value = serde_json::from_str(&public_keys).unwrap();
        Self {
            key: EncodingKey::from_ed_pem(&pem).unwrap(),
            id: keys["keys"][0]["kid"].as_str().unwrap().to_owned(),
            public_keys,
        }
    }

    /// A good token, valid for an hour.
    pub fn token(&self, subject: &str, scope: &str) -> String {
        self.signed(&claims(subject, scope))
    }

    /// Every way in which a token with this scope can be bad, by name.
    pub fn bad(&self, subject: &str, scope: &str) -> Vec<(&'static str, String)> {
        let good = claims(subject, scope);
        let with = |name: &str, value: Value| {
            let mut claims = good.clone();
            claims[name] = value;
            self.signed(&claims)
        };
        let header = |algorithm: &str| json!({"alg": algorithm, "typ": "JWT", "kid": self.id});
        // The public key is not secret. A verifier that trusts the algorithm in the header would use it as an HMAC key.
        let confused = {
            let mut header = Header::new(Algorithm::HS256);
            header.kid = Some(self.id.clone());
            encode(
                &header,
                &good,
                &EncodingKey::from_secret(self.public_keys.as_bytes()),
            )
            .unwrap()
        };
        let foreign = {
            let directory = tempfile::tempdir().unwrap();
            DevelopmentKey::open_or_make(directory.path()).unwrap();
            let pem = std::fs::read(directory.path().join("development-key.pem")).unwrap();
            let mut header = Header::new(Algorithm::EdDSA);
            header.kid = Some(self.id.clone());
            encode(&header, &good, &EncodingKey::from_ed_pem(&pem).unwrap()).unwrap()
        };
        let altered = {
            let token = self.signed(&claims(subject, ""));
            let (head, rest) = token.split_once('.').unwrap();
            let (_, signature) = rest.split_once('.').unwrap();
            format!("{head}.{}.{signature}", part(&good))
        };
        vec![
            ("expired", with("exp", json!(now() - 1))),
            ("for another audience", with("aud", json!("elsewhere"))),
            ("of another issuer", with("iss", json!("somebody"))),
            ("not valid yet", with("nbf", json!(now() + 3600))),
            ("of the wrong algorithm", confused),
            (
                "of the algorithm `none`",
                format!("{}.{}.", part(&header("none")), part(&good)),
            ),
            (
                "of the algorithm `None`",
                format!("{}.{}.", part(&header("None")), part(&good)),
            ),
            ("forged with another key", foreign),
            ("altered", altered),
            ("nonsense", "nonsense".to_owned()),
        ]
    }

    fn signed(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.id.clone());
        encode(&header, claims, &self.key).unwrap()
    }
}

fn claims(subject: &str, scope: &str) -> Value {
    json!({
        "iss": DevelopmentKey::ISSUER,
        "aud": DevelopmentKey::AUDIENCE,
        "sub": subject,
        "scope": scope,
        "exp": now() + 3600,
    })
}

fn part(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}
