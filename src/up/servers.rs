//! Whether the servers in the settings of `up` can be reached. Services wait for what is away, so this only warns.

use anyhow::bail;
use secrecy::ExposeSecret;

use super::{UpSettings, terminal::Terminal};
use crate::{
    operator::{KAFKA_PORT, reachable},
    running::hosts_of,
};

const MONGODB_PORT: u16 = 27017;

/// Refuses a connection string that is none, without a word of what it holds.
///
/// # Errors
/// When it does not begin as one.
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
    // The hosts of mongodb+srv are known to DNS alone.
    if let Some(hosts) = hosts.filter(|hosts| hosts.starts_with("mongodb://"))
        && let Err(reason) = reachable(&hosts, MONGODB_PORT).await
    {
        terminal.say(&format!(
            "MongoDB at {hosts} cannot be reached ({reason}), and is waited for; see --mongodb-uri (TANDEM_MONGODB_URI)"
        ));
    }
}
