//! Describes the machine and commit of a benchmark, because figures of different machines or commits cannot be
//! compared.

use std::{fs, process::Command};

/// A table of machine and commit, in Markdown.
pub fn described() -> String {
    let processor = first_of("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned());
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = first_of("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok())
        .map_or_else(
            || "unknown".to_owned(),
            |kib| format!("{:.0} GiB", kib / (1 << 20) as f64),
        );
    let system = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // Other load on the machine affects every figure.
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("unknown");
    let build = if cfg!(debug_assertions) {
        "debug: its figures say nothing of the release"
    } else {
        "release"
    };
    let rows = [
        ("commit", commit()),
        ("build", build.to_owned()),
        ("processor", format!("{processor}, {processors} of them")),
        ("memory", memory),
        (
            "system",
            format!("{} {}", std::env::consts::OS, system.trim()),
        ),
        ("load of the minute before", load.to_owned()),
    ];
    let rows = rows.map(|(name, value)| format!("| {name} | {value} |\n"));
    format!("| | |\n|---|---|\n{}", rows.concat())
}

fn first_of(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn commit() -> String {
    let Some(commit) = git(&["show", "-s", "--format=%h of %cs"]) else {
        return "unknown".to_owned();
    };
    let changed = git(&[
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ".",
        ":!docs",
    ]);
    match changed.as_deref() {
        Some("") => commit,
        _ => format!("{commit}, with changes"),
    }
}
