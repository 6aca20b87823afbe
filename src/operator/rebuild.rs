//! `tandem rebuild` and `tandem restore`. The running service rebuilds its store from the log, and the command shows
//! the progress. Entries that the log lacks are removed only on an explicit order, after a copy is written to a file.

mod counts;

use std::{
    fs::File,
    io::{BufReader, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use futures::StreamExt;
use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use reqwest::{Method, Response};
use serde_json::json;
use tandem_assembly::admin::rebuild::{Copies, Copy, Done, Lack, Line, Wanted};
use tandem_event_path::rebuild::Progress;

use super::{
    bounded_lines::BoundedLines,
    reach::{Place, Services},
    service::{Operator, Service},
};
use counts::Counts;

use crate::terminal::{one_line, say};

/// How many copies are sent in one request, and at most how many bytes of them. A single copy may be larger.
const SOME: usize = 200;
const SOME_BYTES: usize = 256 * 1024;
/// The longest line in a file of copies, in bytes: far longer than any aggregate.
const LONGEST_LINE: u64 = 16 * 1024 * 1024;
const LIMIT: Duration = Duration::from_secs(60);

/// What to rebuild.
#[derive(Args, Clone, Debug)]
pub(crate) struct RebuildSettings {
    /// Whose store.
    #[arg(value_name = "accounts|orders")]
    service: Service,

    /// Also remove what is stored and not in the log, and set back what is ahead of it. It is written to a file first, which `tandem
    /// restore` takes back. Without this, such things are told and left as they are.
    #[arg(long)]
    remove_what_the_log_lacks: bool,

    /// How many are to be removed and set back: if the rebuild finds another number, nothing is. Without it the number is asked for.
    #[arg(long, value_name = "N", requires = "remove_what_the_log_lacks")]
    confirm_removals: Option<u64>,

    /// The file that what is removed is written to before [default: tandem-removed-SERVICE-TIME.ndjson]
    #[arg(long, value_name = "FILE", requires = "remove_what_the_log_lacks")]
    removed_file: Option<PathBuf>,

    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    services: Services,
}

/// What to take back.
#[derive(Args, Clone, Debug)]
pub(crate) struct RestoreSettings {
    /// Into whose store.
    #[arg(value_name = "accounts|orders")]
    service: Service,

    /// The file that a rebuild wrote what it removed to.
    file: PathBuf,

    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    services: Services,
}

/// Makes the service rebuild its store, and shows the progress.
pub(crate) async fn run(settings: RebuildSettings) -> anyhow::Result<()> {
    let operator = settings
        .place
        .operator(&settings.services, settings.service)?;
    let wanted = Wanted {
        copies: settings.remove_what_the_log_lacks,
        ..Wanted::default()
    };
    let (lacking, counts) = rebuild(&operator, wanted, true).await?;
    if let Some(kept) = counts.kept() {
        say(&kept);
    }
    if settings.remove_what_the_log_lacks {
        return remove(&settings, &operator, &lacking).await;
    }
    if let Some(left) = counts.left() {
        say(&left);
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a file is named by the time")]
async fn remove(
    settings: &RebuildSettings,
    operator: &Operator,
    lacking: &[Copy],
) -> anyhow::Result<()> {
    if lacking.is_empty() {
        say(
            "nothing is to be removed: what is stored is in the log, or was before it was restored",
        );
        return Ok(());
    }
    let count = lacking.len() as u64;
    confirm(settings.confirm_removals, count)?;
    let service = settings.service.name();
    let file = settings.removed_file.clone().unwrap_or_else(|| {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        PathBuf::from(format!("tandem-removed-{service}-{now}.ndjson"))
    });
    write(&file, lacking)?;
    say(&format!(
        "{count} written to {}; tandem restore {service} {} takes them back",
        file.display(),
        file.display()
    ));
    let mut done = Done::default();
    for some in lacking.chunks(SOME) {
        let copies = some.iter().cloned().map(|copy| Copy {
            sealed: None,
            ..copy
        });
        let body = json!({"copies": copies.collect::<Vec<_>>()});
        let answer = operator
            .send(Method::POST, "/admin/rebuild/removals", None, Some(body))
            .await?;
        let mut lines = Lines::of(answer);
        match lines
            .next()
            .await?
            .context("the service went away during the removal")?
        {
            Line::Done(some) => {
                done.removed += some.removed;
                done.revert += some.revert;
            }
            Line::Failed(reason) => bail!("{reason}; what was removed until then is in the file"),
            _ => bail!("the service answered something else than what it removed"),
        }
    }
    // Entries that were blocked by something that is now removed are read again. Entries that differ are replaced by
    // the log's form.
    let wanted = Wanted {
        replace_entries: true,
        ..Wanted::default()
    };
    let (_, counts) = rebuild(operator, wanted, false).await?;
    say(&format!(
        "{} removed, {} set back",
        done.removed,
        done.revert + counts.revert
    ));
    Ok(())
}

fn confirm(given: Option<u64>, count: u64) -> anyhow::Result<()> {
    let told = match given {
        Some(told) => told,
        None if std::io::stdin().is_terminal() => {
            eprint!("{count} would be removed or set back. Type that number to go on: ");
            let mut line = String::new();
            std::io::stdin().read_line(&mut line)?;
            line.trim()
                .parse()
                .context("not a number; nothing was removed")?
        }
        None => bail!(
            "{count} would be removed or set back; nothing was. To go on: --confirm-removals {count}"
        ),
    };
    if told != count {
        bail!(
            "{count} would be removed or set back, and {told} were confirmed; nothing was. Look at what differs, then: --confirm-removals {count}"
        );
    }
    Ok(())
}

fn write(path: &Path, lacking: &[Copy]) -> anyhow::Result<()> {
    let unwritten = || format!("{} cannot be written; nothing was removed", path.display());
    let file = File::create_new(path).with_context(unwritten)?;
    let mut out = BufWriter::new(file);
    for copy in lacking {
        serde_json::to_writer(&mut out, copy).with_context(unwritten)?;
        out.write_all(b"\n").with_context(unwritten)?;
    }
    let file = out.into_inner().with_context(unwritten)?;
    file.sync_all().with_context(unwritten)
}

/// Restores the entries that a rebuild removed.
pub(crate) async fn restore(settings: RestoreSettings) -> anyhow::Result<()> {
    let operator = settings
        .place
        .operator(&settings.services, settings.service)?;
    let unreadable = || format!("{} cannot be read", settings.file.display());
    let file = File::open(&settings.file).with_context(unreadable)?;
    let mut some: Vec<Copy> = Vec::new();
    let mut bytes = 0;
    let mut taken = 0;
    for line in BoundedLines::new(BufReader::new(file), LONGEST_LINE) {
        let line = line.with_context(unreadable)?;
        let copy: Copy = serde_json::from_str(&line).with_context(unreadable)?;
        if !some.is_empty() && (some.len() >= SOME || bytes + line.len() > SOME_BYTES) {
            taken += take_back(&operator, std::mem::take(&mut some)).await?;
            bytes = 0;
        }
        bytes += line.len();
        some.push(copy);
    }
    taken += take_back(&operator, some).await?;
    say(&format!("{taken} taken back"));
    Ok(())
}

async fn take_back(operator: &Operator, copies: Vec<Copy>) -> anyhow::Result<u64> {
    if copies.is_empty() {
        return Ok(0);
    }
    let body = serde_json::to_value(Copies { copies })?;
    let done: Done = operator
        .send(
            Method::POST,
            "/admin/rebuild/copies",
            Some(LIMIT),
            Some(body),
        )
        .await?
        .json()
        .await?;
    Ok(done.taken_back)
}

/// Makes the service rebuild everything. Returns copies of what the log lacks, if requested, and the counts.
async fn rebuild(
    operator: &Operator,
    wanted: Wanted,
    is_shown: bool,
) -> anyhow::Result<(Vec<Copy>, Counts)> {
    let answer = operator
        .send(
            Method::POST,
            "/admin/rebuild",
            None,
            Some(serde_json::to_value(wanted)?),
        )
        .await?;
    let mut lines = Lines::of(answer);
    let mut shown = Shown::default();
    let mut lacking = Vec::new();
    while let Some(line) = lines.next().await? {
        match line {
            Line::Progress(progress) => shown.show(progress, is_shown),
            Line::Lacking(copy) => {
                // Of a differing entry only the content is needed, because the next rebuild replaces it by the log's
                // form.
                debug_assert!(copy.lack != Lack::Differing || copy.version.is_empty());
                lacking.push(copy);
            }
            Line::Finished => {
                shown.close(is_shown);
                return Ok((lacking, shown.counts));
            }
            Line::Failed(reason) => {
                bail!("{reason}; what is rebuilt until then is right, start it again at any time")
            }
            Line::Done(_) => bail!("the service answered something else than progress"),
        }
    }
    bail!("the service went away during the rebuild; start it again at any time")
}

/// The lines of a streamed response.
pub(super) struct Lines {
    body: std::pin::Pin<Box<dyn futures::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    text: Vec<u8>,
}

impl Lines {
    pub(super) fn of(answer: Response) -> Self {
        Self {
            body: Box::pin(answer.bytes_stream()),
            text: Vec::new(),
        }
    }

    /// The next line, or `None` at the end.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Line>> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                let line = serde_json::from_slice(&line);
                return Ok(Some(
                    line.context("the service answered something else than progress")?,
                ));
            }
            let Some(chunk) = self.body.next().await else {
                return Ok(None);
            };
            self.text.extend_from_slice(
                &chunk.context(
                    "the service went away during the rebuild; start it again at any time",
                )?,
            );
        }
    }
}

/// One progress bar for each target that is rebuilt.
#[derive(Default)]
struct Shown {
    bar: Option<(String, ProgressBar)>,
    last: Option<Progress>,
    counts: Counts,
}

impl Shown {
    fn show(&mut self, progress: Progress, is_shown: bool) {
        if self
            .bar
            .as_ref()
            .is_none_or(|(target, _)| *target != progress.target)
        {
            self.close(is_shown);
            let bar = ProgressBar::new(progress.total);
            if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(one_line(&progress.target).into_owned());
            self.bar = Some((progress.target.clone(), bar));
        }
        if let Some((_, bar)) = &self.bar {
            bar.set_length(progress.total);
            bar.set_position(progress.read);
            bar.set_message(figures(&progress));
        }
        self.last = Some(progress);
    }

    fn close(&mut self, is_shown: bool) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
        let Some(last) = self.last.take() else {
            return;
        };
        self.counts.add(&last);
        if !is_shown {
            return;
        }
        let rate = last.read as f64 / last.seconds.max(0.001);
        let mut more = String::new();
        if last.waiting > 0 {
            more += &format!(
                "; {} wait for their data keys (tandem keys waiting)",
                last.waiting
            );
        }
        let lacking = last.unknown + last.ahead + last.differing;
        if lacking > 0 {
            more += &format!("; {lacking} stored are not as the log has them, and are left");
        }
        if let Some(of_the_log) = last.of_the_log {
            more += &format!("; {}, so nothing was removed", one_line(&of_the_log));
        }
        say(&format!(
            "{}: {} events read, {} written, {} refused, in {:.1} s ({rate:.0} events/s), 0 removed, {} set back{more}",
            one_line(&last.target),
            last.read,
            last.written,
            last.refused,
            last.seconds,
            last.revert
        ));
    }
}

/// The progress, the rate and the remaining time, each as soon as it is known.
fn figures(progress: &Progress) -> String {
    let (read, total) = (
        HumanCount(progress.read),
        HumanCount(progress.total.max(progress.read)),
    );
    if progress.read == 0 {
        return format!("{total} events to read");
    }
    // A rate at the very beginning means nothing.
    if progress.seconds < 0.5 {
        return format!("{read} of {total} events");
    }
    let rate = progress.read as f64 / progress.seconds;
    let left = progress.total.saturating_sub(progress.read);
    let told = format!("{read} of {total} events, {}/s", HumanCount(rate as u64));
    if left == 0 {
        return told;
    }
    let seconds = (left as f64 / rate).ceil() as u64;
    format!(
        "{told}, {} left",
        HumanDuration(Duration::from_secs(seconds))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told_when_there_is_something_to_tell() {
        let told = |read, total, seconds| {
            figures(&Progress {
                read,
                total,
                seconds,
                ..Progress::default()
            })
        };
        assert_eq!(told(0, 6_013, 0.0), "6,013 events to read");
        assert_eq!(told(0, 6_013, 9.0), "6,013 events to read");
        assert_eq!(told(13, 6_013, 0.1), "13 of 6,013 events");
        assert_eq!(
            told(2_725, 6_013, 2.0),
            "2,725 of 6,013 events, 1,362/s, 3 seconds left"
        );
        assert_eq!(told(6_013, 6_013, 4.0), "6,013 of 6,013 events, 1,503/s");
        // The log grows, and its end is updated only now and then.
        assert_eq!(told(7_000, 6_013, 4.0), "7,000 of 7,000 events, 1,750/s");
        assert_eq!(told(1, 1_000, 10.0), "1 of 1,000 events, 0/s, 3 hours left");
    }
}
