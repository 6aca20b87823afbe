//! `tandem rebuild`: the running service rebuilds its store from the log; the progress is shown here.

use anyhow::{Context, bail};
use clap::Args;
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use tandem_kit::{admin::rebuild::Line, rebuild::Progress};

use super::service::{Reach, Service};

/// What to rebuild.
#[derive(Args, Clone, Debug)]
pub(crate) struct RebuildSettings {
    /// Whose store.
    service: Service,

    #[command(flatten)]
    reach: Reach,
}

/// Asks the service to rebuild its store and shows how far it is.
pub(crate) async fn run(settings: RebuildSettings) -> anyhow::Result<()> {
    let operator = settings.reach.operator(settings.service)?;
    let response = operator
        .send(Method::POST, "/admin/rebuild", None, None)
        .await?;
    let mut body = response.bytes_stream();
    let mut text = Vec::new();
    let mut shown = Shown::default();
    while let Some(chunk) = body.next().await {
        text.extend_from_slice(
            &chunk
                .context("the service went away during the rebuild; start it again at any time")?,
        );
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            match serde_json::from_slice(&line)
                .context("the service answered something else than progress")?
            {
                Line::Progress(progress) => shown.show(&progress),
                Line::Finished => {
                    shown.close();
                    return Ok(());
                }
                Line::Failed(reason) => bail!(
                    "{reason}; what is rebuilt until then is right, start it again at any time"
                ),
            }
        }
    }
    bail!("the service went away during the rebuild; start it again at any time")
}

/// One progress bar for each thing that is rebuilt.
#[derive(Default)]
struct Shown {
    bar: Option<(String, ProgressBar)>,
    last: Option<Progress>,
}

impl Shown {
    fn show(&mut self, progress: &Progress) {
        if self
            .bar
            .as_ref()
            .is_none_or(|(target, _)| *target != progress.target)
        {
            self.close();
            let bar = ProgressBar::new(progress.total);
            if let Ok(style) = ProgressStyle::with_template(
                "{prefix} {wide_bar} {human_pos}/{human_len} events, {per_sec}, {eta} left",
            ) {
                bar.set_style(style);
            }
            bar.set_prefix(progress.target.clone());
            self.bar = Some((progress.target.clone(), bar));
        }
        if let Some((_, bar)) = &self.bar {
            bar.set_length(progress.total);
            bar.set_position(progress.read);
        }
        self.last = Some(progress.clone());
    }

    #[allow(clippy::print_stdout)] // the command's answer
    fn close(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
        if let Some(last) = self.last.take() {
            let rate = last.read as f64 / last.seconds.max(0.001);
            let left_alone = last
                .left_alone
                .map(|reason| format!("; {reason}, so nothing was removed"))
                .unwrap_or_default();
            println!(
                "{}: {} events read, {} written, {} refused, in {:.1} s ({rate:.0} events/s), {} removed, {} set back{left_alone}",
                last.target,
                last.read,
                last.written,
                last.refused,
                last.seconds,
                last.removed,
                last.set_back
            );
        }
    }
}
