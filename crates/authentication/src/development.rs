//! A signing key for development on one machine.
//!
//! It is generated once and kept in the data directory. It signs tokens for trying things out.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::key_set;
use crate::scope::Scopes;

/// The bytes before the 32 bytes of an Ed25519 private key in PKCS #8 (RFC 8410, section 7).
pub(crate) const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
const PRIVATE_KEY: &str = "development-key.pem";
const PUBLIC_KEYS: &str = "development-keys.json";

/// A signing key that is not for production.
pub struct DevelopmentKey {
    key: EncodingKey,
    id: String,
    public_keys: PathBuf,
}

impl std::fmt::Debug for DevelopmentKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("DevelopmentKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Why there is no development key.
#[derive(Debug, thiserror::Error)]
pub enum DevelopmentKeyError {
    /// A file cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file does not contain such a key.
    #[error("{path} is no Ed25519 key in PKCS #8; delete it, and another one is made", path = .0.display())]
    Damaged(PathBuf),
    /// There is no key yet.
    #[error("there is no development key in {path}; `up --auth` makes one", path = .0.display())]
    Absent(PathBuf),
    /// The key cannot sign the token.
    #[error("the token cannot be signed: {0}")]
    Signing(#[from] jsonwebtoken::errors::Error),
    /// The public keys cannot be written as JSON.
    #[error("the public keys cannot be written: {0}")]
    Public(#[from] serde_json::Error),
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    scope: String,
    iat: u64,
    exp: u64,
}

impl DevelopmentKey {
    /// The directory of the key, below the data directory.
    pub const DIRECTORY: &'static str = "auth";
    /// The claim `iss` of its tokens.
    pub const ISSUER: &'static str = "tandem-development";
    /// The claim `aud` of its tokens.
    pub const AUDIENCE: &'static str = "tandem";

    /// Opens the key in this directory, or generates one. The file of a new one has mode 600.
    ///
    /// # Errors
    ///
    /// When a file cannot be written, or is damaged.
    #[expect(clippy::disallowed_methods, reason = "a key needs the system's chance")]
    pub fn open_or_make(directory: &Path) -> Result<Self, DevelopmentKeyError> {
        let path = directory.join(PRIVATE_KEY);
        if !path.exists() {
            fs::create_dir_all(directory).map_err(file(directory))?;
            let mut der = PKCS8_PREFIX.to_vec();
            der.extend_from_slice(&rand::random::<[u8; 32]>());
            let pem = format!(
                "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
                STANDARD.encode(&der)
            );
            write_secret(&path, pem.as_bytes()).map_err(file(&path))?;
        }
        Self::open(directory)
    }

    /// Opens the key that an earlier start generated.
    ///
    /// # Errors
    ///
    /// When there is none, or it is damaged.
    pub fn open(directory: &Path) -> Result<Self, DevelopmentKeyError> {
        let path = directory.join(PRIVATE_KEY);
        let pem = match fs::read_to_string(&path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(DevelopmentKeyError::Absent(directory.to_owned()));
            }
            Err(source) => return Err(DevelopmentKeyError::File { path, source }),
        };
        let body: String = pem
            .lines()
            .filter(|line| !line.starts_with("-----"))
            .collect();
        let der = STANDARD
            .decode(body)
            .ok()
            .filter(|der| der.len() == PKCS8_PREFIX.len() + 32 && der.starts_with(&PKCS8_PREFIX))
            .ok_or_else(|| DevelopmentKeyError::Damaged(path.clone()))?;
        let key = EncodingKey::from_ed_der(&der);
        let mut public = Jwk::from_encoding_key(&key, Algorithm::EdDSA)?;
        let id =
            URL_SAFE_NO_PAD.encode(&Sha256::digest(serde_json::to_vec(&public.algorithm)?)[..9]);
        public.common.key_id = Some(id.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        let public_keys = directory.join(PUBLIC_KEYS);
        let document = key_set::document(public)?;
        if fs::read_to_string(&public_keys).ok().as_deref() != Some(&document) {
            fs::write(&public_keys, document).map_err(file(&public_keys))?;
        }
        Ok(Self {
            key,
            id,
            public_keys,
        })
    }

    /// The file with the public key, for `--auth-jwks`.
    #[must_use]
    pub fn public_keys(&self) -> &Path {
        &self.public_keys
    }

    /// Signs a token that is issued at `now` (seconds since 1970) and valid for `lifetime` seconds.
    ///
    /// # Errors
    ///
    /// When the token cannot be signed.
    pub fn token(
        &self,
        subject: &str,
        scopes: Scopes,
        now: u64,
        lifetime: u64,
    ) -> Result<String, DevelopmentKeyError> {
        let claims = Claims {
            iss: Self::ISSUER,
            aud: Self::AUDIENCE,
            sub: subject,
            scope: scopes.to_string(),
            iat: now,
            exp: now.saturating_add(lifetime),
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.id.clone());
        Ok(encode(&header, &claims, &self.key)?)
    }
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> DevelopmentKeyError {
    let path = path.to_owned();
    move |source| DevelopmentKeyError::File { path, source }
}

/// Writes a file that nobody else can read at any moment. If two processes write it at once, the first one's file
/// stays.
fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(mut file) => {
            file.write_all(bytes)?;
            file.sync_all()
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}
