//! The report of a benchmark: its output, the machine and the commit that it ran on, and charts, on one page that
//! anybody can reproduce.
//!
//! A complete run of a benchmark writes its report to `docs/performance/`. A partial run only prints, unless
//! `TANDEM_REPORT` names a directory. Then its report is named after its words: the report of `path -- reads servers
//! alone` is `path-reads-servers-alone`.

#![allow(dead_code, unused_imports)] // each benchmark uses some of it

mod charts;
mod machine;
mod words;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

pub use charts::{Bars, Curve, Curves};
pub use words::{A_NUMBER, Words};

/// The report of this process, which runs one benchmark.
static REPORT: Mutex<Option<Report>> = Mutex::new(None);

struct Report {
    /// The name of its files.
    name: String,
    /// `None` if no report is written.
    directory: Option<PathBuf>,
    page: String,
    is_in_block: bool,
}

/// Prints a line and adds it to the report. A line that begins with `# ` is a heading.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::report::line(&format!($($text)*))
    };
}
pub(crate) use say;

fn report() -> MutexGuard<'static, Option<Report>> {
    REPORT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The file name of the report of a run with these words.
fn file_name(benchmark: &str, words: &[String], is_whole: bool) -> String {
    if is_whole {
        return benchmark.to_owned();
    }
    let parts = words.iter().flat_map(|word| {
        word.split(|letter: char| !letter.is_ascii_alphanumeric())
            .filter(|part| !part.is_empty())
    });
    let parts: Vec<&str> = std::iter::once(benchmark).chain(parts).collect();
    parts.join("-")
}

/// Begins the report of this benchmark. `is_whole` if all of it runs.
pub fn begin(name: &'static str, title: &str, is_whole: bool) {
    let told = std::env::var_os("TANDEM_REPORT").map(PathBuf::from);
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance");
    let words = words::given();
    let mut command = format!("cargo bench --bench {name}");
    if !words.is_empty() {
        let _ = write!(command, " -- {}", words.join(" "));
    }
    let page = format!(
        "# {title}\n\nWritten by `{command}`. What it says and how it is to be read: [performance](../performance.md).\n\n{}",
        machine::described(),
    );
    *report() = Some(Report {
        name: file_name(name, &words, is_whole),
        directory: told.or_else(|| is_whole.then(usual)),
        page,
        is_in_block: false,
    });
}

/// Prints a line and adds it to the report.
pub fn line(text: &str) {
    println!("{text}");
    if let Some(report) = &mut *report() {
        report.line(text);
    }
}

impl Report {
    fn line(&mut self, text: &str) {
        for text in text.lines() {
            if let Some(heading) = text.strip_prefix("# ") {
                self.end_block();
                let _ = write!(self.page, "\n## {heading}\n");
            } else if !text.trim().is_empty() {
                if !self.is_in_block {
                    self.page.push_str("\n```text\n");
                    self.is_in_block = true;
                }
                self.page.push_str(text);
                self.page.push('\n');
            } else if self.is_in_block {
                self.page.push('\n');
            }
        }
    }

    fn end_block(&mut self) {
        if self.is_in_block {
            self.page.truncate(self.page.trim_end().len());
            self.page.push_str("\n```\n");
            self.is_in_block = false;
        }
    }

    /// The path of a chart, if a report is written. Adds the chart to the page.
    fn chart(&mut self, chart: &str, title: &str) -> Option<PathBuf> {
        let directory = self.directory.as_ref()?;
        std::fs::create_dir_all(directory).unwrap();
        let file = format!("{}-{chart}.svg", self.name);
        let path = directory.join(&file);
        self.end_block();
        let _ = write!(self.page, "\n![{title}]({file})\n");
        Some(path)
    }
}

/// Adds a chart with bars.
pub fn bars(name: &str, bars: &Bars<'_>) {
    chart(name, bars.title, |path| bars.draw(path));
}

/// Adds a chart with curves.
pub fn curves(name: &str, curves: &Curves<'_>) {
    chart(name, curves.title, |path| curves.draw(path));
}

fn chart(name: &str, title: &str, draw: impl FnOnce(&Path)) {
    let path = report()
        .as_mut()
        .and_then(|report| report.chart(name, title));
    if let Some(path) = path {
        draw(&path);
    }
}

/// Writes the report.
pub fn end() {
    let Some(mut report) = report().take() else {
        return;
    };
    report.end_block();
    if let Some(directory) = &report.directory {
        std::fs::create_dir_all(directory).unwrap();
        let path = directory.join(format!("{}.md", report.name));
        std::fs::write(&path, &report.page).unwrap();
        println!("\nreport: {}", path.display());
    }
}
