//! A key and a self-signed certificate for a listener on loopback, made for one test by Java's `keytool`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Error, discovery};

/// The files that the listener and its clients need.
#[derive(Debug)]
pub(crate) struct Certificate {
    /// PKCS12 key store of the listener.
    pub(crate) key_store: PathBuf,
    /// Password of the key store and its key.
    pub(crate) password: String,
    /// The certificate in PEM, which a client has to trust.
    pub(crate) authority: PathBuf,
}

impl Certificate {
    /// Makes a certificate for 127.0.0.1 and localhost, good for two days.
    ///
    /// # Errors
    /// When `keytool` is missing or fails.
    pub(crate) fn make(directory: &Path, password: &str) -> Result<Self, Error> {
        let certificate = Self {
            key_store: directory.join("listener.p12"),
            password: password.to_owned(),
            authority: directory.join("authority.pem"),
        };
        certificate.keytool(&[
            "-genkeypair",
            "-dname",
            "CN=localhost",
            "-keyalg",
            "EC",
            "-groupname",
            "secp256r1",
            "-validity",
            "2",
            "-ext",
            "san=ip:127.0.0.1,dns:localhost",
            "-ext",
            "bc:critical=ca:true",
        ])?;
        let authority = certificate.authority.to_string_lossy().into_owned();
        certificate.keytool(&["-exportcert", "-rfc", "-file", &authority])?;
        Ok(certificate)
    }

    /// Key and certificate in one PEM file, the form that mongod needs.
    ///
    /// # Errors
    /// When `openssl` is missing or fails.
    pub(crate) fn pem(&self, directory: &Path) -> Result<PathBuf, Error> {
        let file = directory.join("listener.pem");
        let program = PathBuf::from("openssl");
        let output = Command::new(&program)
            .args(["pkcs12", "-nodes", "-passin"])
            .arg(format!("pass:{}", self.password))
            .arg("-in")
            .arg(&self.key_store)
            .arg("-out")
            .arg(&file)
            .output()
            .map_err(|source| Error::Spawn { program, source })?;
        if output.status.success() {
            return Ok(file);
        }
        Err(Error::Tool {
            tool: "openssl",
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn keytool(&self, arguments: &[&str]) -> Result<(), Error> {
        let program = discovery::java("keytool").ok_or(Error::NotInstalled("keytool"))?;
        let output = Command::new(&program)
            .args(arguments)
            .args([
                "-alias",
                "listener",
                "-storetype",
                "PKCS12",
                "-storepass",
                &self.password,
                "-keystore",
            ])
            .arg(&self.key_store)
            .output()
            .map_err(|source| Error::Spawn { program, source })?;
        if output.status.success() {
            return Ok(());
        }
        // keytool prints its errors to standard output.
        let said = [output.stdout, output.stderr].concat();
        Err(Error::Tool {
            tool: "keytool",
            output: String::from_utf8_lossy(&said).into_owned(),
        })
    }
}
