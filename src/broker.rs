//! The command that runs the embedded broker: its settings, and the data directories that it refuses.
//!
//! With the embedded broker, Tandem runs with nothing installed. In production the broker is Apache Kafka or a service
//! that speaks its protocol. Nothing outside this module knows the difference. The broker itself is the crate
//! `tandem-embedded-broker`.

use std::path::{Path, PathBuf};

use tandem_embedded_broker::{FILE, Settings, open};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// The file in which earlier versions kept the log.
const EARLIER_FILE: &str = "broker.db";

/// What `tandem broker` can be told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BrokerSettings {
    /// Port on the loopback interface, 1 to 65535.
    #[arg(long, env = "TANDEM_BROKER_PORT", default_value_t = 9092, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,

    /// Directory of the broker's file. It is made when it does not exist.
    #[arg(long, env = "TANDEM_BROKER_DATA_DIR", default_value = ".tandem/broker")]
    pub(crate) data_dir: PathBuf,
}

/// Why the broker could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokerError {
    /// The directory has the log of an earlier version.
    #[error(
        "{} holds events of an earlier version of Tandem, which this one cannot read; run that version with this directory, or choose another --data-dir to begin anew",
        path.display()
    )]
    Earlier {
        /// The file.
        path: PathBuf,
    },
    /// A setting does not fit.
    #[error("{flag}: {source}")]
    Setting {
        /// The flag of the setting.
        flag: &'static str,
        /// What is wrong.
        source: tandem_embedded_broker::BrokerError,
    },
    /// The broker itself.
    #[error(transparent)]
    Broker(tandem_embedded_broker::BrokerError),
}

impl From<tandem_embedded_broker::BrokerError> for BrokerError {
    fn from(source: tandem_embedded_broker::BrokerError) -> Self {
        use tandem_embedded_broker::BrokerError as Source;
        let flag = match source {
            Source::Directory { .. } | Source::Unusable { .. } => "--data-dir",
            Source::Listen { .. } => "--port",
            Source::WriterEnded => return Self::Broker(source),
        };
        Self::Setting { flag, source }
    }
}

/// Serves until `stop` is cancelled.
///
/// # Errors
///
/// [`BrokerError`] when the directory, the port or the file cannot be used, or after a defect.
pub(crate) async fn run(
    settings: BrokerSettings,
    stop: CancellationToken,
) -> Result<(), BrokerError> {
    refuse_earlier(&settings.data_dir)?;
    let file = settings.data_dir.join(FILE);
    let broker = open(&Settings {
        port: settings.port,
        data_dir: settings.data_dir,
        cleaning_interval: Settings::CLEANING_INTERVAL,
    })?;
    info!(port = broker.port(), file = %file.display(), "the broker answers");
    broker.serve(stop).await?;
    info!("the broker has stopped");
    Ok(())
}

/// Refuses a directory that holds the log of an earlier version. If an empty log began beside it, the stores would seem
/// to be ahead of the log.
///
/// # Errors
///
/// [`BrokerError::Earlier`].
pub(crate) fn refuse_earlier(data_dir: &Path) -> Result<(), BrokerError> {
    let path = data_dir.join(EARLIER_FILE);
    if path.exists() && !data_dir.join(FILE).exists() {
        return Err(BrokerError::Earlier { path });
    }
    Ok(())
}

/// The warning to print before an empty log begins beside stores that already have data: the log lacks their events.
pub(crate) fn is_missing_beside(data_dir: &Path, stores: &[PathBuf]) -> Option<String> {
    let file = data_dir.join(FILE);
    let store = stores.iter().find(|store| store.exists())?;
    (!file.exists()).then(|| {
        format!(
            "{} is not there, but {} is: an empty log is begun, and what is stored already is not in it. If that file was lost, \
             stop, put it back, and start again",
            file.display(),
            store.display()
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_log_of_an_earlier_version_is_refused_until_there_is_a_new_one() {
        let directory = tempfile::tempdir().unwrap();
        assert!(refuse_earlier(directory.path()).is_ok());
        std::fs::write(directory.path().join(EARLIER_FILE), "SQLite").unwrap();
        let refused = refuse_earlier(directory.path()).unwrap_err().to_string();
        assert!(
            refused.contains("broker.db") && refused.contains("--data-dir"),
            "{refused}"
        );
        std::fs::write(directory.path().join(FILE), "").unwrap();
        assert!(refuse_earlier(directory.path()).is_ok());
    }

    #[test]
    fn an_empty_log_beside_a_full_store_is_spoken_of() {
        let directory = tempfile::tempdir().unwrap();
        let stores = [
            directory.path().join("accounts.redb"),
            directory.path().join("orders.redb"),
        ];
        assert_eq!(is_missing_beside(directory.path(), &stores), None);
        std::fs::write(&stores[1], "").unwrap();
        let said = is_missing_beside(directory.path(), &stores).unwrap();
        assert!(
            said.contains("log.redb") && said.contains("orders.redb"),
            "{said}"
        );
        std::fs::write(directory.path().join(FILE), "").unwrap();
        assert_eq!(is_missing_beside(directory.path(), &stores), None);
    }
}
