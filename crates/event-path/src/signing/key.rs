//! The key pair with which a service signs, and where it comes from.

use std::{
    fmt,
    io::{Error, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tandem_runtime::clock::Clock;

/// Bytes of a key's id.
pub(super) const KEY_ID_BYTES: usize = 8;
/// Identifies a verifying key: the first 64 bits of its SHA-256.
pub(super) type KeyId = [u8; KEY_ID_BYTES];

const KEY_BYTES: usize = 32;
const NO_SIGNATURE: [u8; 64] = [0; 64];

/// How a service signs, and whom it trusts.
#[derive(Args, Clone, Debug, Default)]
pub struct SigningSettings {
    /// The key that this service signs its events with: 32 bytes as base64. No other service may have it. Only by environment, so that it
    /// shows in no process list.
    #[arg(
        long,
        env = "TANDEM_SIGNING_KEY",
        value_name = "BASE64",
        hide = true,
        hide_env_values = true
    )]
    pub signing_key: Option<SecretString>,

    /// File that holds the key that this service signs its events with: 32 bytes as base64. Without one the service makes a key in its
    /// data directory.
    #[arg(long, env = "TANDEM_SIGNING_KEY_FILE", value_name = "FILE")]
    pub signing_key_file: Option<PathBuf>,

    /// A verifying key that is trusted beside the ones that the service has pinned, such as accounts=BASE64; commas between several.
    #[arg(
        long,
        env = "TANDEM_TRUSTED_SIGNERS",
        value_name = "SERVICE=BASE64",
        value_delimiter = ','
    )]
    pub trusted_signers: Vec<TrustedSigner>,

    /// Take events without a signature, as from other producers, or while some instances do not sign yet. Signatures that are there must be
    /// right all the same.
    #[arg(long, env = "TANDEM_ACCEPT_UNSIGNED")]
    pub accept_unsigned: bool,
}

/// Why there is no usable signing key.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    /// The file cannot be read.
    #[error("the signing key file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: Error,
    },
    /// No key was given, and a new one could not be stored.
    #[error("no signing key is given, and none can be made as {} ({source}): set TANDEM_SIGNING_KEY to 32 random bytes in base64 (openssl rand -base64 32), others for each service, or TANDEM_SIGNING_KEY_FILE to a file that holds them", path.display())]
    NotMade {
        /// The file for the new key.
        path: PathBuf,
        /// The reason.
        #[source]
        source: Error,
    },
    /// The key is not 32 bytes in base64.
    #[error("the signing key must be 32 bytes in base64 (openssl rand -base64 32)")]
    Malformed,
}

/// Signs records. Clones share the key.
#[derive(Clone)]
pub struct SigningKey {
    pair: Arc<Ed25519KeyPair>,
    verifying: VerifyingKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SigningKey({})", self.verifying)
    }
}

impl SigningKey {
    /// Makes the key pair of a seed: RFC 8032, section 5.1.5.
    ///
    /// # Errors
    /// When the seed has no key pair. No seed of this length is known to cause that.
    pub fn from_seed(seed: &[u8; KEY_BYTES]) -> Result<Self, SigningKeyError> {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| SigningKeyError::Malformed)?;
        let public = <[u8; KEY_BYTES]>::try_from(pair.public_key().as_ref())
            .map_err(|_| SigningKeyError::Malformed)?;
        Ok(Self {
            verifying: public.into(),
            pair: Arc::new(pair),
        })
    }

    /// The key that the settings give. If they give none, the key in the file `<service>.signing.key` of the data
    /// directory. The file is created if it does not exist.
    ///
    /// # Errors
    /// When a file cannot be read or created, or the key is not 32 bytes in base64.
    pub fn from_settings(
        settings: &SigningSettings,
        service: &str,
        data_directory: &Path,
        clock: &Clock,
    ) -> Result<Self, SigningKeyError> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|source| SigningKeyError::Unreadable {
                path: path.to_owned(),
                source,
            })
        };
        let text = match (&settings.signing_key, &settings.signing_key_file) {
            (Some(key), _) => key.expose_secret().to_owned(),
            (None, Some(path)) => read(path)?,
            (None, None) => {
                let path = data_directory.join(format!("{service}.signing.key"));
                match std::fs::read_to_string(&path) {
                    Ok(text) => text,
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        make(&path, clock).map_err(|source| SigningKeyError::NotMade {
                            path: path.clone(),
                            source,
                        })?;
                        read(&path)?
                    }
                    Err(source) => return Err(SigningKeyError::Unreadable { path, source }),
                }
            }
        };
        let bytes = STANDARD
            .decode(text.trim())
            .map_err(|_| SigningKeyError::Malformed)?;
        let seed: [u8; KEY_BYTES] = bytes.try_into().map_err(|_| SigningKeyError::Malformed)?;
        Self::from_seed(&seed)
    }

    /// The key that verifies its signatures.
    #[must_use]
    pub fn verifying(&self) -> &VerifyingKey {
        &self.verifying
    }

    pub(super) fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        // The algorithm fixes the length. A signature of zeros would be valid nowhere.
        self.pair
            .sign(bytes)
            .as_ref()
            .try_into()
            .unwrap_or(NO_SIGNATURE)
    }
}

/// Creates a file with a new key. If another process was faster, its key stays.
fn make(path: &Path, clock: &Clock) -> Result<(), Error> {
    let mut seed = [0; KEY_BYTES];
    for part in seed.chunks_exact_mut(16) {
        part.copy_from_slice(&clock.random().to_ne_bytes());
    }
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
    }
    // First written under another name, so that a crash does not leave half a key.
    let unfinished = path.with_extension(format!("{}.new", std::process::id()));
    let _ = std::fs::remove_file(&unfinished);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)?;
    writeln!(file, "{}", STANDARD.encode(seed))?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&unfinished, path);
    let _ = std::fs::remove_file(&unfinished);
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The key that verifies signatures: an Ed25519 public key. As text it is base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VerifyingKey {
    bytes: [u8; KEY_BYTES],
    /// Computed once, because it is needed for each record.
    id: KeyId,
}

impl From<[u8; KEY_BYTES]> for VerifyingKey {
    fn from(bytes: [u8; KEY_BYTES]) -> Self {
        let digest = Sha256::digest(bytes);
        let mut id = KeyId::default();
        id.copy_from_slice(&digest[..KEY_ID_BYTES]);
        Self { bytes, id }
    }
}

impl VerifyingKey {
    pub(super) fn id(&self) -> KeyId {
        self.id
    }

    pub(super) fn verifies(&self, bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.bytes)
            .verify(bytes, signature)
            .is_ok()
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&STANDARD.encode(self.bytes))
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "VerifyingKey({self})")
    }
}

impl FromStr for VerifyingKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || "a verifying key is 32 bytes in base64".to_owned();
        let bytes = STANDARD.decode(text.trim()).map_err(|_| malformed())?;
        <[u8; KEY_BYTES]>::try_from(bytes)
            .map(Self::from)
            .map_err(|_| malformed())
    }
}

impl TryFrom<String> for VerifyingKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<VerifyingKey> for String {
    fn from(key: VerifyingKey) -> Self {
        key.to_string()
    }
}

/// A verifying key from the settings, and the service that owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedSigner {
    /// The service.
    pub service: String,
    /// The key.
    pub key: VerifyingKey,
}

impl FromStr for TrustedSigner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, key) = text
            .split_once('=')
            .ok_or("give the service and its verifying key, such as accounts=BASE64")?;
        let service = service.trim();
        if !["accounts", "orders"].contains(&service) {
            return Err(format!(
                "{service:?} is no service; there are accounts and orders"
            ));
        }
        Ok(Self {
            service: service.to_owned(),
            key: key.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// RFC 8032, section 7.1, test 1.
    #[test]
    fn a_seed_makes_the_key_pair_of_the_standard() {
        let seed = STANDARD
            .decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
            .unwrap()
            .try_into()
            .unwrap();
        let key = SigningKey::from_seed(&seed).unwrap();
        assert_eq!(
            key.verifying().to_string(),
            "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
        );
        assert!(key.verifying().verifies(b"x", &key.sign(b"x")));
        assert!(!key.verifying().verifies(b"y", &key.sign(b"x")));
    }

    #[test]
    fn a_key_is_made_once_for_each_service_and_kept() {
        let directory = std::env::temp_dir().join(format!("tandem-{}", uuid::Uuid::now_v7()));
        let load = |settings: &SigningSettings, service| {
            SigningKey::from_settings(settings, service, &directory, &Clock::default())
                .map(|key| *key.verifying())
        };
        let none = SigningSettings::default();
        let accounts = load(&none, "accounts").unwrap();
        assert_eq!(load(&none, "accounts").unwrap(), accounts);
        assert_ne!(load(&none, "orders").unwrap(), accounts);
        let file = directory.join("accounts.signing.key");
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "only this user may read it");
        let given = SigningSettings {
            signing_key_file: Some(file.clone()),
            ..none.clone()
        };
        assert_eq!(load(&given, "anything").unwrap(), accounts);
        std::fs::write(&file, "no key").unwrap();
        assert!(matches!(
            load(&none, "accounts"),
            Err(SigningKeyError::Malformed)
        ));
        std::fs::remove_dir_all(&directory).unwrap();
        std::fs::write(&directory, "a file").unwrap();
        let refused = load(&none, "accounts").unwrap_err().to_string();
        assert!(
            refused.contains("TANDEM_SIGNING_KEY") || refused.contains("cannot be read"),
            "{refused}"
        );
        std::fs::remove_file(&directory).unwrap();
    }

    #[test]
    fn a_trusted_signer_names_its_service() {
        let key = SigningKey::from_seed(&[7; 32]).unwrap();
        let text = format!("accounts={}", key.verifying());
        assert_eq!(text.parse::<TrustedSigner>().unwrap().key, *key.verifying());
        for bad in ["accounts", "accounts=x", "shop=AAAA"] {
            assert!(bad.parse::<TrustedSigner>().is_err());
        }
    }
}
