//! TLS settings of clients that call the system's own ports: they trust the system's authority and present its
//! certificate.

use std::path::Path;

use anyhow::Context;
use reqwest::{Certificate, ClientBuilder, Identity};
use tandem_front_door::TlsSettings;

fn read(flag: &str, file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("{flag} {} cannot be read", file.display()))
}

/// Adds the certificates in the settings to the client.
///
/// # Errors
/// When a file cannot be read or holds something else.
pub(crate) fn trusting(
    mut client: ClientBuilder,
    settings: &TlsSettings,
) -> anyhow::Result<ClientBuilder> {
    let Some(authority) = &settings.tls_ca else {
        return Ok(client);
    };
    let flag = "--tls-ca";
    let certificates = Certificate::from_pem_bundle(&read(flag, authority)?)
        .with_context(|| format!("{flag} {} holds no certificates", authority.display()))?;
    for certificate in certificates {
        client = client.add_root_certificate(certificate);
    }
    if let (Some(certificate), Some(key)) = (&settings.tls_certificate, &settings.tls_key) {
        let mut both = read("--tls-key", key)?;
        both.push(b'\n');
        both.extend(read("--tls-certificate", certificate)?);
        let identity =
            Identity::from_pem(&both).context("--tls-certificate and --tls-key do not fit")?;
        client = client.identity(identity);
    }
    Ok(client)
}
