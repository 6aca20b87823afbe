//! Examines the keys: the one that seals personal data, and those that sign events.

use std::{io::ErrorKind, os::unix::fs::PermissionsExt, path::Path};

use tandem_event_path::{
    sealing::Sealer,
    signing::{SigningKey, SigningKeyError, SigningSettings},
};
use tandem_runtime::clock::Clock;

use super::{DoctorSettings, Finding};
use crate::running::Found;

/// Each service has its own signing key. With `up`, its embedded store is beside the key.
const SERVICES: [&str; 2] = ["accounts", "orders"];

pub(super) fn examine(doctor: &DoctorSettings, found: &Found) -> Vec<Finding> {
    let directory = &doctor.place.data_dir;
    let mut findings = vec![sealing_key(doctor, found)];
    findings.extend(SERVICES.map(|service| signing_key(directory, service)));
    findings
}

fn sealing_key(doctor: &DoctorSettings, found: &Found) -> Finding {
    let subject = "sealing key";
    let sealing = doctor.place.sealing(found);
    let file = sealing
        .sealing_key_file
        .clone()
        .filter(|_| sealing.sealing_key.is_none());
    if let Some(file) = &file
        && !doctor.place.names_a_key()
        && found.alive().is_none()
        && matches!(std::fs::metadata(file), Err(error) if error.kind() == ErrorKind::NotFound)
    {
        if SERVICES
            .iter()
            .any(|service| has_store(&doctor.place.data_dir, service))
        {
            return Finding::bad(
                subject,
                format!(
                    "{} is gone, and the stores beside it are sealed with it",
                    file.display()
                ),
                "put it back from a backup, or name it with --sealing-key-file: no other key opens what is there, so `tandem up` makes none",
            );
        }
        return Finding::good(
            subject,
            format!("{} is made by `tandem up`", file.display()),
        );
    }
    if let Err(error) = Sealer::from_settings(&sealing) {
        return Finding::bad(
            subject,
            error.to_string(),
            "see --sealing-key-file (TANDEM_SEALING_KEY_FILE)",
        );
    }
    let Some(file) = file else {
        return Finding::good(subject, "given by the environment, well-formed");
    };
    guarded(subject, &file)
}

fn signing_key(directory: &Path, service: &str) -> Finding {
    let subject = "signing key";
    let file = directory.join(format!("{service}.signing.key"));
    let settings = SigningSettings {
        signing_key_file: Some(file.clone()),
        ..SigningSettings::default()
    };
    // No key is made for a file that the settings name.
    match SigningKey::from_settings(&settings, service, directory, &Clock::default()) {
        Ok(_) => guarded(subject, &file),
        Err(SigningKeyError::Unreadable { source, .. }) if source.kind() == ErrorKind::NotFound => {
            if has_store(directory, service) {
                return Finding::doubtful(
                    subject,
                    format!(
                        "{} is not there, and the store of {service} is",
                        file.display()
                    ),
                    format!(
                        "put it back from a backup: {service} does not start with another one. If it was given a key (TANDEM_SIGNING_KEY, \
                         --signing-key-file), or its version did not sign yet, nothing is wrong"
                    ),
                );
            }
            Finding::good(subject, format!("{} is made by {service}", file.display()))
        }
        Err(error @ SigningKeyError::Unreadable { .. }) => Finding::bad(
            subject,
            error.to_string(),
            format!("let the user that {service} runs as read it"),
        ),
        Err(error) => Finding::bad(
            subject,
            format!("{}: {error}", file.display()),
            format!("put it back from a backup: {service} does not start with it"),
        ),
    }
}

fn has_store(directory: &Path, service: &str) -> bool {
    directory.join(format!("{service}.redb")).exists()
}

/// Judges a valid key by whether anybody else may read its file.
fn guarded(subject: &str, file: &Path) -> Finding {
    let shown = file.display();
    let mode = std::fs::metadata(file).map_or(0, |about| about.permissions().mode());
    if mode & 0o077 != 0 {
        return Finding::doubtful(
            subject,
            format!("others may read {shown}"),
            format!("chmod 600 {shown}"),
        );
    }
    Finding::good(subject, format!("{shown} is well-formed"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::Permissions;

    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_signing_key_is_missed_only_where_something_was_signed_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("orders.signing.key");
        let verdict = || signing_key(folder.path(), "orders").verdict;
        assert_eq!(verdict(), Verdict::Good);
        assert!(!file.exists(), "a key was made");

        std::fs::write(folder.path().join("orders.redb"), "").unwrap();
        assert_eq!(verdict(), Verdict::Doubtful);
        assert!(!file.exists(), "a key was made");

        std::fs::write(&file, "A".repeat(43) + "=\n").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(verdict(), Verdict::Good);
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(verdict(), Verdict::Doubtful);

        std::fs::write(&file, "short").unwrap();
        let told = signing_key(folder.path(), "orders");
        assert_eq!(told.verdict, Verdict::Bad);
        assert!(
            told.found.contains("orders.signing.key") && told.found.contains("32 bytes"),
            "{told:?}"
        );
    }
}
