//! Tells the program which commit it was built from: git's, or, where the sources are an archive that git made, the one written there. Has
//! the linker compress what a development build has of debug information.
#![allow(clippy::print_stdout)] // what cargo reads

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Holds the commit in an archive that `git archive` made (`.gitattributes`).
const ARCHIVED: &str = ".commit";

fn main() {
    println!("cargo:rerun-if-changed={ARCHIVED}");
    println!("cargo:rerun-if-changed=build.rs");
    let commit = of_git().or_else(of_archive);
    // No name of ours: `cargo run` hands it to the program, which would take it for a misspelt setting.
    println!(
        "cargo:rustc-env=BUILT_FROM_COMMIT={}",
        commit.as_deref().unwrap_or("unknown")
    );
    // A fifth of a development build's program. Backtraces have line numbers all the same: the standard library reads zlib.
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-link-arg-bins=-Wl,--compress-debug-sections=zlib");
    }
}

/// What git says in the folder of this package.
fn git(arguments: &[&str]) -> Option<String> {
    let said = Command::new("git").args(arguments).output().ok()?;
    let text = said
        .status
        .success()
        .then(|| String::from_utf8(said.stdout))?;
    Some(text.ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The commit that is checked out, if this folder is a repository and no part of another one.
fn of_git() -> Option<String> {
    let root = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if root.canonicalize().ok()? != here.canonicalize().ok()? {
        return None;
    }
    let reference = git(&["symbolic-ref", "-q", "HEAD"]);
    // Each of them changes when another commit is checked out or made. One that is not there would have this run at every build.
    for watched in [Some("HEAD"), Some("logs/HEAD"), reference.as_deref()] {
        let path = watched.and_then(|name| git(&["rev-parse", "--git-path", name]));
        if let Some(path) = path.filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "HEAD"])
}

fn of_archive() -> Option<String> {
    let text = std::fs::read_to_string(ARCHIVED).ok()?;
    let commit = text.trim();
    let is_commit = commit.len() >= 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_commit.then(|| commit.to_owned())
}
