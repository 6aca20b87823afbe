//! Warns when the servers in the settings of `up` cannot be reached. It only warns, because the services wait for them.

use anyhow::bail;
use secrecy::ExposeSecret;

use super::{UpSettings, terminal::Terminal};
use crate::{
    operator::{KAFKA_PORT, reachable},
    running::hosts_of,
};

const MONGODB_PORT: u16 = 27017;

/// Refuses a value that is not a connection string. The message shows nothing of the value, which may hold a password.
///
/// # Errors
/// When the value does not begin as a connection string.
pub(super) fn check_uri(settings: &UpSettings) -> anyhow::Result<()> {
    let Some(uri) = &settings.mongodb_uri else {
        return Ok(());
    };
    let uri = uri.expose_secret();
    if !uri.starts_with("mongodb://") && !uri.starts_with("mongodb+srv://") {
        bail!(
            "--mongodb-uri (TANDEM_MONGODB_URI) is no connection string: write mongodb://HOST:PORT/?replicaSet=NAME or \
             mongodb+srv://USER:PASSWORD@HOST/"
        );
    }
    Ok(())
}

/// Says which server cannot be reached, and why.
pub(super) async fn tell_of_the_absent(settings: UpSettings, terminal: Terminal) {
    if let Some(brokers) = &settings.kafka_brokers
        && let Err(reason) = reachable(brokers, KAFKA_PORT).await
    {
        terminal.say(&format!(
            "Kafka at {brokers} cannot be reached ({reason}), and is waited for; see --kafka-brokers (TANDEM_KAFKA_BROKERS)"
        ));
    }
    let hosts = settings
        .mongodb_uri
        .map(|uri| hosts_of(uri.expose_secret()));
    // Only DNS knows the hosts behind mongodb+srv.
    if let Some(hosts) = hosts.filter(|hosts| hosts.starts_with("mongodb://"))
        && let Err(reason) = reachable(&hosts, MONGODB_PORT).await
    {
        terminal.say(&format!(
            "MongoDB at {hosts} cannot be reached ({reason}), and is waited for; see --mongodb-uri (TANDEM_MONGODB_URI)"
        ));
    }
}
