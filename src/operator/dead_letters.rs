//! `tandem dead-letters`: shows messages that a service could not process, retries them in order, or discards them.

use std::time::Duration;

use anyhow::bail;
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::json;
use tandem_assembly::admin::dead_letters::{JobView, LetterId, LetterPage, LetterView, Work};

use super::{
    reach::{Place, Services},
    service::{Operator, Service},
};
use crate::terminal::{one_line, say, say_aside};

const LIMIT: Duration = Duration::from_secs(30);
/// How often to ask the service for the progress.
const LOOK: Duration = Duration::from_millis(300);
/// How many times in a row the service may be silent before this command stops asking. The work itself goes on.
const PATIENCE: usize = 20;

/// What to do with dead letters.
#[derive(Args, Clone, Debug)]
pub(crate) struct DeadLettersSettings {
    #[command(subcommand)]
    what: What,

    /// Whose dead letters.
    #[arg(long, global = true, value_enum, default_value = "orders")]
    service: Service,

    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    services: Services,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// List them, in order of consumer, topic, partition and offset.
    List {
        #[command(flatten)]
        which: Which,

        /// At most so many.
        #[arg(long, default_value_t = 1_000)]
        limit: u64,
    },
    /// Show one whole, as CONSUMER/TOPIC/PARTITION/OFFSET.
    Show {
        /// Which, as `list` names it.
        letter: String,
    },
    /// Take them once more, key by key, in order. The service goes on with it if this command is ended.
    Retry {
        #[command(flatten)]
        which: Which,
    },
    /// Remove one without taking it, as CONSUMER/TOPIC/PARTITION/OFFSET, or all of a key or a consumer.
    Discard {
        /// Which, as `list` names it.
        #[arg(required_unless_present_any = ["key", "consumer"], conflicts_with_all = ["key", "consumer"])]
        letter: Option<String>,

        #[command(flatten)]
        which: Which,
    },
    /// Show how far the last retry or discarding of many is.
    Status,
}

/// Which letters.
#[derive(Args, Clone, Debug)]
struct Which {
    /// Only those of this key.
    #[arg(long)]
    key: Option<String>,
    /// Only those of this consumer.
    #[arg(long)]
    consumer: Option<String>,
}

impl Which {
    fn parameters(&self) -> Vec<(&'static str, String)> {
        [("key", &self.key), ("consumer", &self.consumer)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.clone()?)))
            .collect()
    }
}

/// Runs the command on the running service.
pub(crate) async fn run(settings: DeadLettersSettings) -> anyhow::Result<()> {
    let operator = settings
        .place
        .operator(&settings.services, settings.service)?;
    match settings.what {
        What::List { which, limit } => print_list(&operator, &which, limit).await?,
        What::Show { letter } => {
            let found = show(&operator, parse(&letter)?).await?;
            let Some(found) = found else {
                bail!("there is no dead letter {letter}; `tandem dead-letters list` names them");
            };
            say(&name(&found));
            say(&format!("key: {}", one_line(&found.key)));
            say(&format!("reason: {}", one_line(&found.reason)));
            say(&format!("parked: {}", found.parked_at.to_rfc3339()));
            for (header, value) in &found.headers {
                say(&format!("header {}: {}", one_line(header), one_line(value)));
            }
            if found.is_cut {
                say("(what follows is its beginning: the topic has it whole)");
            }
            let body = found
                .payload
                .as_deref()
                .map(|text| STANDARD.decode(text))
                .transpose()?;
            match body {
                Some(body) => say(&String::from_utf8_lossy(&body)),
                None if found.withheld => say(
                    "(the body is left out: it is shown to a token with the scope customers:read too)",
                ),
                None => say("(no body: a tombstone)"),
            }
        }
        What::Retry { which } => work(&operator, "retry", &which).await?,
        What::Discard {
            letter: Some(letter),
            ..
        } => {
            let id = parse(&letter)?;
            operator
                .send(
                    Method::POST,
                    "/admin/dead-letters/discard",
                    Some(LIMIT),
                    Some(serde_json::to_value(id)?),
                )
                .await?;
            say(&format!("{} discarded", one_line(&letter)));
        }
        What::Discard {
            letter: None,
            which,
        } => work(&operator, "discard-all", &which).await?,
        What::Status => {
            let job = look(&operator).await?;
            if job.is_running() {
                let (done_so_far, all) = (job.done, job.total);
                say(&format!("{done_so_far} of {all} {} so far", done(job.work)));
            } else {
                tell(&job)?;
            }
        }
    }
    Ok(())
}

async fn print_list(operator: &Operator, which: &Which, limit: u64) -> anyhow::Result<()> {
    let (mut after, mut shown, mut total) = (None, 0, 0);
    while shown < limit {
        let mut parameters = which.parameters();
        parameters.extend(after.take().map(|after| ("after", after)));
        parameters.push(("limit", (limit - shown).min(200).to_string()));
        let page: LetterPage = operator
            .send(
                Method::GET,
                &with_query("/admin/dead-letters", &parameters)?,
                Some(LIMIT),
                None,
            )
            .await?
            .json()
            .await?;
        total = page.total;
        for letter in &page.letters {
            say(&format!(
                "{}  key {}  {}  {}",
                name(letter),
                one_line(&letter.key),
                letter.parked_at.to_rfc3339(),
                one_line(&letter.reason)
            ));
            shown += 1;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if shown == 0 {
        say("no dead letters");
    } else if shown < total {
        say(&format!(
            "{shown} of {total} are listed; --limit lists more"
        ));
    }
    Ok(())
}

/// A path with these query parameters.
fn with_query(path: &str, parameters: &[(&str, String)]) -> anyhow::Result<String> {
    let mut url = reqwest::Url::parse("http://service/")?;
    url.query_pairs_mut().extend_pairs(parameters);
    Ok(match url.query() {
        Some(query) if !query.is_empty() => format!("{path}?{query}"),
        _ => path.to_owned(),
    })
}

async fn show(operator: &Operator, id: LetterId) -> anyhow::Result<Option<LetterView>> {
    let parameters = [
        ("consumer", id.consumer),
        ("topic", id.topic),
        ("partition", id.partition.to_string()),
        ("offset", id.offset.to_string()),
    ];
    let path = with_query("/admin/dead-letters/letter", &parameters)?;
    let found = operator.find(Method::GET, &path, Some(LIMIT), None).await?;
    Ok(match found {
        Some(found) => Some(found.json().await?),
        None => None,
    })
}

/// Makes the service begin the work, and shows the progress until the work has ended.
#[expect(clippy::disallowed_methods, reason = "a command runs on real time")]
async fn work(operator: &Operator, what: &str, which: &Which) -> anyhow::Result<()> {
    let body = json!({"key": which.key, "consumer": which.consumer});
    let begun = operator
        .find(
            Method::POST,
            &format!("/admin/dead-letters/{what}"),
            Some(LIMIT),
            Some(body),
        )
        .await?;
    let Some(begun) = begun else {
        let of = which
            .parameters()
            .iter()
            .map(|(name, value)| format!(" of the {name} {value}"))
            .collect::<Vec<_>>()
            .join(" and");
        bail!("there are no dead letters{of}; `tandem dead-letters list` shows what there is");
    };
    let mut job: JobView = begun.json().await?;
    let (mut told, mut silent) = (0, 0);
    while job.is_running() {
        tokio::time::sleep(LOOK).await;
        match look(operator).await {
            Ok(now) if now.id == job.id => (job, silent) = (now, 0),
            Ok(_) => bail!("the service has begun other work since; this one has ended"),
            Err(error) if silent >= PATIENCE => {
                return Err(error.context(
                    "the service does not say how far it is; `tandem dead-letters status` asks again",
                ));
            }
            Err(_) => silent += 1,
        }
        if job.done >= told + 1_000 {
            told = job.done;
            say_aside(&format!("{} of {} {}", job.done, job.total, done(job.work)));
        }
    }
    tell(&job)
}

async fn look(operator: &Operator) -> anyhow::Result<JobView> {
    Ok(operator
        .send(Method::GET, "/admin/dead-letters/job", Some(LIMIT), None)
        .await?
        .json()
        .await?)
}

fn done(work: Work) -> &'static str {
    match work {
        Work::Retry => "retried",
        Work::Discard => "discarded",
    }
}

/// Reports the result of work that has ended.
fn tell(job: &JobView) -> anyhow::Result<()> {
    say(&format!("{} {}", job.done, done(job.work)));
    for (key, reason) in &job.refused {
        say(&format!(
            "key {} is still refused: {}",
            one_line(key),
            one_line(reason)
        ));
    }
    if let Some(reason) = &job.failed {
        bail!("it ended early: {reason}; what was done stays so, begin again at any time");
    }
    if job.refused_keys > 0 {
        bail!("{} keys are still refused", job.refused_keys);
    }
    Ok(())
}

fn name(letter: &LetterView) -> String {
    one_line(&format!(
        "{}/{}/{}/{}",
        letter.consumer, letter.topic, letter.partition, letter.offset
    ))
    .into_owned()
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
