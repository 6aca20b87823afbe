//! `tandem log`: shows whether the logs are those that a store was made from, accepts them as they are, and republishes
//! what a log has lost.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use reqwest::Method;
use tandem_assembly::admin::rebuild::Line;
use tandem_event_path::log_memory::Alarm;

use super::{
    reach::{Place, Services},
    rebuild::Lines,
    service::Service,
};
use crate::terminal::{one_line, say};

const LIMIT: Duration = Duration::from_secs(60);

/// What to do with logs.
#[derive(Args, Clone, Debug)]
pub(crate) struct LogsSettings {
    #[command(subcommand)]
    what: What,

    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    services: Services,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Say whether the logs are those that the service's store was made from.
    Status {
        /// Whose store.
        #[arg(value_name = "accounts|orders")]
        service: Service,
    },
    /// Write to the service's own log what its store holds and the log lacks, as events that are marked as restored.
    Restore {
        /// Whose log.
        #[arg(value_name = "accounts|orders")]
        service: Service,
    },
    /// Take the logs as they are now for those that the service's store is made from; ends an alarm, changes nothing else.
    Accept {
        /// Whose store.
        #[arg(value_name = "accounts|orders")]
        service: Service,
    },
}

/// Runs the command on the running service.
pub(crate) async fn run(settings: LogsSettings) -> anyhow::Result<()> {
    match settings.what {
        What::Status { service } => {
            let operator = settings.place.operator(&settings.services, service)?;
            let answer = operator
                .send(Method::GET, "/admin/log", Some(LIMIT), None)
                .await?;
            let alarms: Vec<Alarm> = answer.json().await?;
            if alarms.is_empty() {
                say("the logs are those that the store was made from");
                return Ok(());
            }
            tell(&alarms);
            bail!("{} partitions are not what they were", alarms.len());
        }
        What::Accept { service } => {
            let operator = settings.place.operator(&settings.services, service)?;
            let answer = operator
                .send(Method::POST, "/admin/log/accept", Some(LIMIT), None)
                .await?;
            let alarms: Vec<Alarm> = answer.json().await?;
            tell(&alarms);
            say("the logs are taken as they are");
        }
        What::Restore { service } => {
            let operator = settings.place.operator(&settings.services, service)?;
            let answer = operator
                .send(Method::POST, "/admin/log/restore", None, None)
                .await?;
            let mut lines = Lines::of(answer);
            loop {
                let line = lines.next().await?;
                match line.context("the service went away; start it again at any time")? {
                    Line::Done(done) => {
                        say(&format!("{} written to the log", done.restored));
                        return Ok(());
                    }
                    Line::Failed(reason) => bail!("{reason}; start it again at any time"),
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

fn tell(alarms: &[Alarm]) {
    for alarm in alarms {
        say(&format!(
            "{}/{}: {}",
            one_line(&alarm.topic),
            alarm.partition,
            one_line(&alarm.what)
        ));
    }
}
