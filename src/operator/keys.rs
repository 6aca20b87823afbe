//! `tandem keys`: shows which events wait for their data key, republishes keys that the topic of keys has lost, and
//! replaces the sealing key.

use std::time::Duration;

use clap::{Args, Subcommand};
use reqwest::Method;
use tandem_assembly::admin::{keys::Healed, rotation::RotationView};
use tandem_event_path::waiting::WaitingView;

use super::{
    reach::{Place, Services},
    service::Service,
};
use crate::terminal::{self, one_line, say, say_aside};

const LIMIT: Duration = Duration::from_secs(30);
/// How often to ask for the progress of a rotation, and after how many entries to report it.
const POLL: Duration = Duration::from_millis(300);
const TOLD_EVERY: u64 = 10_000;
/// Time limit of publishing, which reads all customers.
const PUBLISH_LIMIT: Duration = Duration::from_secs(3_600);

/// What to do with data keys.
#[derive(Args, Clone, Debug)]
pub(crate) struct KeysSettings {
    #[command(subcommand)]
    what: What,

    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    services: Services,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// List the events that wait for their data key, and why.
    Waiting {
        /// Only those of this service.
        #[arg(long, value_enum)]
        service: Option<Service>,
        /// Print JSON instead of lines.
        #[arg(long)]
        json: bool,
    },
    /// Have accounts publish the data keys that its store holds and the topic of keys has lost. It does so at each start, too.
    Publish,
    /// Replace the sealing key: have both services seal with the newest key what older ones have sealed, while they serve. Interrupted, it
    /// goes on where it was. Says when the older keys may go.
    Rotate {
        /// Print how it ended as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command on the running services.
pub(crate) async fn run(settings: KeysSettings) -> anyhow::Result<()> {
    match settings.what {
        What::Waiting { service, json } => {
            let services =
                service.map_or(vec![Service::Accounts, Service::Orders], |one| vec![one]);
            let mut all: Vec<WaitingView> = Vec::new();
            for service in services {
                let operator = settings.place.operator(&settings.services, service)?;
                let answer = operator
                    .send(Method::GET, "/admin/keys/waiting", Some(LIMIT), None)
                    .await?;
                all.extend(answer.json::<Vec<WaitingView>>().await?);
            }
            if json {
                say(&terminal::json(&serde_json::to_string_pretty(&all)?));
            } else if all.is_empty() {
                say("no event waits for its data key");
            } else {
                for waiting in all {
                    say(&format!(
                        "{}  key of {}  {} {}/{}/{}  since {}  {}",
                        one_line(&waiting.reader),
                        one_line(&waiting.subject),
                        one_line(&waiting.key),
                        one_line(&waiting.topic),
                        waiting.partition,
                        waiting.offset,
                        waiting.since.to_rfc3339(),
                        one_line(&waiting.reason)
                    ));
                }
            }
        }
        What::Publish => {
            let healed: Healed = settings
                .place
                .operator(&settings.services, Service::Accounts)?
                .send(
                    Method::POST,
                    "/admin/keys/publish",
                    Some(PUBLISH_LIMIT),
                    None,
                )
                .await?
                .json()
                .await?;
            say(&format!("{} published", healed.published));
        }
        What::Rotate { json } => {
            let mut ended = Vec::new();
            for service in [Service::Accounts, Service::Orders] {
                let view = rotate(&settings, service).await?;
                ended.push((service.name(), view));
            }
            if json {
                let all: std::collections::BTreeMap<_, _> = ended.into_iter().collect();
                say(&terminal::json(&serde_json::to_string_pretty(&all)?));
            } else {
                for (_, view) in ended.iter().take(1) {
                    say(&told(view));
                }
            }
        }
    }
    Ok(())
}

/// How a rotation ended.
fn told(view: &RotationView) -> String {
    let key = one_line(&view.key);
    if view.older.is_empty() {
        return format!("everything is sealed with {key}, the only key");
    }
    let older: Vec<_> = view.older.iter().map(|key| one_line(key)).collect();
    format!(
        "everything is sealed with {key}; the older keys may go: {}",
        older.join(", ")
    )
}

/// Makes a service replace its sealing key, and waits until it has finished.
#[expect(clippy::disallowed_methods, reason = "a command runs on real time")]
async fn rotate(settings: &KeysSettings, service: Service) -> anyhow::Result<RotationView> {
    let operator = settings.place.operator(&settings.services, service)?;
    let begun = operator.send(Method::POST, "/admin/keys/rotate", Some(LIMIT), None);
    let mut view: RotationView = begun.await?.json().await?;
    let mut told = 0;
    while view.is_running() {
        if view.looked_at >= told + TOLD_EVERY {
            told = view.looked_at;
            say_aside(&format!(
                "{}: {} looked at, {} sealed anew",
                service.name(),
                view.looked_at,
                view.rewrapped
            ));
        }
        tokio::time::sleep(POLL).await;
        let shown = operator.send(Method::GET, "/admin/keys/rotation", Some(LIMIT), None);
        view = shown.await?.json().await?;
    }
    let name = service.name();
    say_aside(&format!(
        "{name}: {} looked at, {} sealed anew",
        view.looked_at, view.rewrapped
    ));
    if !view.unopened_ids.is_empty() {
        let ids: Vec<_> = view.unopened_ids.iter().map(|id| one_line(id)).collect();
        say_aside(&format!("{name}: these do not open: {}", ids.join(", ")));
    }
    match &view.failed {
        Some(reason) => anyhow::bail!("{name}: {}", one_line(reason)),
        None if view.ended_at.is_none() => {
            anyhow::bail!(
                "{name} was started again meanwhile; it goes on by itself, and this command may be given again"
            )
        }
        None => Ok(view),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_rotation_ended_is_told_and_what_a_terminal_obeys_is_shown() {
        let mut view = RotationView {
            key: "ab\x1b[2J12".to_owned(),
            ..RotationView::default()
        };
        assert_eq!(
            told(&view),
            r"everything is sealed with ab\u{1b}[2J12, the only key"
        );
        view.older = vec!["cd\x1b[31m".to_owned(), "ef".to_owned()];
        assert_eq!(
            told(&view),
            r"everything is sealed with ab\u{1b}[2J12; the older keys may go: cd\u{1b}[31m, ef"
        );
    }
}
