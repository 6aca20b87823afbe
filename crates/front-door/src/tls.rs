//! TLS of a port: a certificate that is reloaded when its files change, and client certificates between the parts of
//! one system.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Duration,
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;

/// How often the files are checked.
const LOOK: Duration = if cfg!(test) {
    Duration::from_millis(20)
} else {
    Duration::from_secs(5)
};

/// Certificates of a port.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsSettings {
    /// Certificate of this port in PEM, with those that lead to its authority; without it the port speaks HTTP in clear. Read again when it
    /// changes.
    #[arg(
        long,
        env = "TANDEM_TLS_CERTIFICATE",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub tls_certificate: Option<PathBuf>,

    /// The certificate's key in PEM.
    #[arg(
        long,
        env = "TANDEM_TLS_KEY",
        value_name = "FILE",
        requires = "tls_certificate"
    )]
    pub tls_key: Option<PathBuf>,

    /// Certificates, in PEM, of the authority of the system's own certificates. Services then answer only those who show one by it; the
    /// gateway, and the commands, trust the services by it and show their own.
    #[arg(
        long,
        env = "TANDEM_TLS_CA",
        value_name = "FILE",
        requires = "tls_certificate"
    )]
    pub tls_ca: Option<PathBuf>,
}

/// Why a port cannot use TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{flag} {} cannot be read: {reason}", path.display())]
    File {
        /// The setting.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The certificate and the key do not fit together.
    #[error("--tls-certificate and --tls-key do not fit: {0}")]
    Unfit(#[from] rustls::Error),
    /// The file of the authority does not contain usable certificates.
    #[error("--tls-ca {} does not do: {reason}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
}

/// The contents of the files.
#[derive(Clone, PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authority: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Shared {
    paths: Paths,
    current: RwLock<Arc<ServerConfig>>,
}

#[derive(Clone, Debug)]
struct Paths {
    certificate: PathBuf,
    key: PathBuf,
    authority: Option<PathBuf>,
}

/// The TLS of a port. Clones share it.
#[derive(Clone, Debug)]
pub struct Tls(Arc<Shared>);

/// Whether clients must show certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Every client is accepted.
    Anybody,
    /// If an authority is configured, clients must show a certificate that it signed. Others get answers only on
    /// `/actuator/`.
    Certified,
}

impl Tls {
    /// Loads the files that the settings name, and reloads them when they change. `None` if the settings name none.
    ///
    /// # Errors
    /// When a file cannot be read, or the files do not fit together.
    pub fn load(settings: &TlsSettings, clients: Clients) -> Result<Option<Self>, TlsError> {
        let (Some(certificate), Some(key)) = (&settings.tls_certificate, &settings.tls_key) else {
            return Ok(None);
        };
        let authority = settings.tls_ca.clone();
        let paths = Paths {
            certificate: certificate.clone(),
            key: key.clone(),
            authority: authority.filter(|_| clients == Clients::Certified),
        };
        let files = paths.read()?;
        let shared = Arc::new(Shared {
            current: RwLock::new(Arc::new(config(&paths, &files)?)),
            paths,
        });
        let watched = Arc::downgrade(&shared);
        let watching = std::thread::Builder::new()
            .name("tls-files".to_owned())
            .spawn(move || watch(&watched, files));
        if let Err(error) = watching {
            tracing::warn!(%error, "certificates are not read again when they change");
        }
        Ok(Some(Self(shared)))
    }

    /// Whether requests need a client certificate.
    pub(crate) fn asks_clients(&self) -> bool {
        self.0.paths.authority.is_some()
    }

    /// Accepts connections with the current certificate.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let current = self
            .0
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&current))
    }
}

impl Paths {
    fn read(&self) -> Result<Files, TlsError> {
        let read = |flag: &'static str, path: &Path| {
            std::fs::read(path).map_err(|error: io::Error| TlsError::File {
                flag,
                path: path.to_owned(),
                reason: error.to_string(),
            })
        };
        Ok(Files {
            certificate: read("--tls-certificate", &self.certificate)?,
            key: read("--tls-key", &self.key)?,
            authority: match &self.authority {
                Some(path) => Some(read("--tls-ca", path)?),
                None => None,
            },
        })
    }
}

fn config(paths: &Paths, files: &Files) -> Result<ServerConfig, TlsError> {
    let unreadable = |flag: &'static str, path: &Path, reason: String| TlsError::File {
        flag,
        path: path.to_owned(),
        reason,
    };
    let certificates = CertificateDer::pem_slice_iter(&files.certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unreadable("--tls-certificate", &paths.certificate, error.to_string()))?;
    if certificates.is_empty() {
        let reason = "it holds no certificate in PEM".to_owned();
        return Err(unreadable("--tls-certificate", &paths.certificate, reason));
    }
    let key = PrivateKeyDer::from_pem_slice(&files.key)
        .map_err(|error| unreadable("--tls-key", &paths.key, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match (&files.authority, &paths.authority) {
        (Some(authority), Some(path)) => {
            let unfit = |reason: String| TlsError::Authority {
                path: path.clone(),
                reason,
            };
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(authority) {
                let certificate = certificate.map_err(|error| unfit(error.to_string()))?;
                roots
                    .add(certificate)
                    .map_err(|error| unfit(error.to_string()))?;
            }
            // A client without a certificate gets an answer that says so, and probes need no certificate.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| unfit(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Reloads the files when they change, until the port has ended.
#[expect(clippy::disallowed_methods, reason = "a thread that looks at files")]
fn watch(shared: &Weak<Shared>, mut known: Files) {
    let mut failure = String::new();
    loop {
        std::thread::sleep(LOOK);
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let read = shared.paths.read().and_then(|files| {
            if files == known {
                return Ok(None);
            }
            let config = config(&shared.paths, &files)?;
            Ok(Some((files, config)))
        });
        match read {
            Ok(None) => failure.clear(),
            Ok(Some((files, config))) => {
                let mut current = shared
                    .current
                    .write()
                    .unwrap_or_else(PoisonError::into_inner);
                *current = Arc::new(config);
                known = files;
                failure.clear();
                tracing::info!(certificate = %shared.paths.certificate.display(), "the certificate has changed");
            }
            Err(error) => {
                // This also happens while the files are being replaced. The last good configuration stays in use.
                let reason = error.to_string();
                if reason != failure {
                    tracing::error!(
                        reason,
                        "the certificate has changed and cannot be used; the last one stays"
                    );
                    failure = reason;
                }
            }
        }
    }
}
