//! `tandem dead-letters`: what a service could not take, shown, retried in order, or discarded.

use std::time::Duration;

use anyhow::bail;
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::json;
use tandem_kit::admin::dead_letters::{LetterId, LetterView, RetryReport};

use super::service::{Operator, Reach, Service};

const LIMIT: Duration = Duration::from_secs(30);
/// A retry goes on until the parked keys have been quiet for some seconds.
const RETRY_LIMIT: Duration = Duration::from_secs(3_600);

/// What to do with dead letters.
#[derive(Args, Clone, Debug)]
pub(crate) struct DeadLettersSettings {
    #[command(subcommand)]
    what: What,

    /// Whose dead letters.
    #[arg(long, global = true, value_enum, default_value = "orders")]
    service: Service,

    #[command(flatten)]
    reach: Reach,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// List them, oldest first.
    List,
    /// Show one whole, as CONSUMER/TOPIC/PARTITION/OFFSET.
    Show {
        /// Which, as `list` names it.
        letter: String,
    },
    /// Take them once more, key by key, in order.
    Retry {
        /// Only those of this key.
        #[arg(long)]
        key: Option<String>,
        /// Only those of this consumer.
        #[arg(long)]
        consumer: Option<String>,
    },
    /// Remove one without taking it, as CONSUMER/TOPIC/PARTITION/OFFSET.
    Discard {
        /// Which, as `list` names it.
        letter: String,
    },
}

/// Carries it out on the running service.
#[allow(clippy::print_stdout)] // the command's answer
pub(crate) async fn run(settings: DeadLettersSettings) -> anyhow::Result<()> {
    let operator = settings.reach.operator(settings.service)?;
    match settings.what {
        What::List => {
            let letters = list(&operator).await?;
            if letters.is_empty() {
                println!("no dead letters");
            }
            for letter in letters {
                println!(
                    "{}  key {}  {}  {}",
                    name(&letter),
                    letter.key,
                    letter.parked_at.to_rfc3339(),
                    letter.reason
                );
            }
        }
        What::Show { letter } => {
            let found = list(&operator)
                .await?
                .into_iter()
                .find(|known| name(known) == letter);
            let Some(found) = found else {
                bail!("there is no dead letter {letter}; `tandem dead-letters list` names them");
            };
            println!(
                "{}\nkey: {}\nreason: {}\nparked: {}",
                name(&found),
                found.key,
                found.reason,
                found.parked_at.to_rfc3339()
            );
            for (header, value) in &found.headers {
                println!("header {header}: {value}");
            }
            let body = found
                .payload
                .as_deref()
                .map(|text| STANDARD.decode(text))
                .transpose()?;
            match body {
                Some(body) => println!("{}", String::from_utf8_lossy(&body)),
                None => println!("(no body: a tombstone)"),
            }
        }
        What::Retry { key, consumer } => {
            let body = json!({"key": key, "consumer": consumer});
            let report: RetryReport = operator
                .send(
                    Method::POST,
                    "/admin/dead-letters/retry",
                    Some(RETRY_LIMIT),
                    Some(body),
                )
                .await?
                .json()
                .await?;
            println!("{} retried", report.retried);
            for (key, reason) in &report.refused {
                println!("key {key} is still refused: {reason}");
            }
            if !report.refused.is_empty() {
                bail!("{} keys are still refused", report.refused.len());
            }
        }
        What::Discard { letter } => {
            let id = parse(&letter)?;
            operator
                .send(
                    Method::POST,
                    "/admin/dead-letters/discard",
                    Some(LIMIT),
                    Some(serde_json::to_value(id)?),
                )
                .await?;
            println!("{letter} discarded");
        }
    }
    Ok(())
}

async fn list(operator: &Operator) -> anyhow::Result<Vec<LetterView>> {
    Ok(operator
        .send(Method::GET, "/admin/dead-letters", Some(LIMIT), None)
        .await?
        .json()
        .await?)
}

fn name(letter: &LetterView) -> String {
    format!(
        "{}/{}/{}/{}",
        letter.consumer, letter.topic, letter.partition, letter.offset
    )
}

fn parse(name: &str) -> anyhow::Result<LetterId> {
    let parts: Vec<&str> = name.split('/').collect();
    let [consumer, topic, partition, offset] = parts[..] else {
        bail!(
            "{name} is not CONSUMER/TOPIC/PARTITION/OFFSET, as `tandem dead-letters list` names them"
        );
    };
    let (Ok(partition), Ok(offset)) = (partition.parse(), offset.parse()) else {
        bail!("{name}: partition and offset are numbers");
    };
    Ok(LetterId {
        consumer: consumer.to_owned(),
        topic: topic.to_owned(),
        partition,
        offset,
    })
}
