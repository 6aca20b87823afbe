//! The workspace as its manifests and sources describe it: what the tests of the architecture look at.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// The root of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace is above this package")
}

/// A package of the workspace.
#[derive(Clone, Debug)]
pub struct Package {
    /// Its name without `tandem-`; `tandem` for the root package.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// The packages that it needs in order to be built, tests aside: ours without `tandem-`, others under their own name.
    pub needs: BTreeSet<String>,
}

/// The packages of the workspace, as cargo knows them.
///
/// # Panics
/// When cargo cannot tell.
#[must_use]
pub fn packages() -> Vec<Package> {
    let told = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        told.status.success(),
        "{}",
        String::from_utf8_lossy(&told.stderr)
    );
    let told: Value = serde_json::from_slice(&told.stdout).expect("cargo writes JSON");
    let short = |name: &str| name.strip_prefix("tandem-").unwrap_or(name).to_owned();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let packages = told["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| Package {
            name: short(&text(&package["name"])),
            folder: PathBuf::from(text(&package["manifest_path"]))
                .parent()
                .expect("a folder")
                .to_owned(),
            needs: package["dependencies"]
                .as_array()
                .expect("dependencies")
                .iter()
                .filter(|needed| needed["kind"].as_str() != Some("dev"))
                .map(|needed| short(&text(&needed["name"])))
                .collect(),
        })
        .collect()
}

/// The Rust files below a folder.
///
/// # Panics
/// When a folder cannot be read.
#[must_use]
pub fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A file without its comments and without the modules that are compiled for tests alone.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn code(file: &Path) -> String {
    shipped(&fs::read_to_string(file).expect("a text"))
}

fn shipped(text: &str) -> String {
    let mut shipped = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let is_for_tests =
            line == "#[cfg(test)]" && lines.peek().is_some_and(|next| next.starts_with("mod "));
        if is_for_tests {
            let declared = lines.next().unwrap_or_default();
            if declared.ends_with('{') {
                // As rustfmt has it, nothing but its end is at the margin.
                lines.by_ref().find(|line| *line == "}");
            }
        } else if !line.trim_start().starts_with("//") {
            shipped.push(line);
        }
    }
    shipped.join("\n")
}

/// For each top-level module of a package those other top-level modules of it that it names.
///
/// # Panics
/// When a file cannot be read.
#[must_use]
pub fn modules(package: &Package) -> BTreeMap<String, BTreeSet<String>> {
    let folder = package.folder.join("src");
    let module_of = |file: &Path| -> Option<String> {
        let relative = file.strip_prefix(&folder).ok()?;
        let first = relative.components().next()?.as_os_str().to_str()?;
        let module = first.strip_suffix(".rs").unwrap_or(first);
        (!matches!(module, "lib" | "main" | "bin")).then(|| module.to_owned())
    };
    let is_for_tests = |file: &Path| {
        let name = file.file_stem().and_then(|name| name.to_str());
        matches!(name, Some("tests" | "test_support" | "contract"))
    };
    let files: Vec<PathBuf> = sources(&folder)
        .into_iter()
        .filter(|file| !is_for_tests(file))
        .collect();
    let names: BTreeSet<String> = files.iter().filter_map(|file| module_of(file)).collect();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in &files {
        let Some(module) = module_of(file) else {
            continue;
        };
        let named = named_by(&code(file));
        let others = named
            .into_iter()
            .filter(|other| *other != module && names.contains(other));
        found.entry(module.clone()).or_default().extend(others);
    }
    found
}

/// The top-level modules that a text names by a path which begins with `crate::`, alone or in braces.
fn named_by(code: &str) -> BTreeSet<String> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let first = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|it| is_part(*it))
            .collect()
    };
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        if !rest.starts_with('{') {
            found.insert(first(rest));
            continue;
        }
        // Only what is at the first level of the braces begins a path.
        let (mut depth, mut begins) = (0, false);
        for (at, character) in rest.char_indices() {
            match character {
                '{' => {
                    depth += 1;
                    begins = depth == 1;
                    continue;
                }
                '}' => depth -= 1,
                ',' => {
                    begins = depth == 1;
                    continue;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if begins && is_part(character) {
                found.insert(first(&rest[at..]));
                begins = false;
            }
        }
    }
    found
}

/// A circle among these, if there is one.
#[must_use]
pub fn circle(uses: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        name: &str,
        uses: &BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(begin) = way.iter().position(|passed| passed == name) {
            return Some(way[begin..].to_vec());
        }
        if !done.insert(name.to_owned()) {
            return None;
        }
        way.push(name.to_owned());
        let found = uses
            .get(name)
            .into_iter()
            .flatten()
            .find_map(|used| visit(used, uses, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    uses.keys()
        .find_map(|name| visit(name, uses, &mut Vec::new(), &mut done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_alone_and_in_braces() {
        let code = "use crate::{\n    log::{Log, store},\n    outbox,\n};\nuse crate::event::X;\nlet x = crate::sealing::y();";
        let expected = ["event", "log", "outbox", "sealing"].map(str::to_owned);
        assert_eq!(named_by(code), BTreeSet::from(expected));
    }

    #[test]
    fn what_is_behind_a_module_of_tests_is_looked_at_too() {
        let text = "use crate::log;\n#[cfg(test)]\nmod tests;\nuse crate::outbox;\n// use crate::store;\n#[cfg(test)]\nmod more {\n    use crate::event::X;\n}\nuse crate::sealing;";
        let expected = ["log", "outbox", "sealing"].map(str::to_owned);
        assert_eq!(named_by(&shipped(text)), BTreeSet::from(expected));
    }

    #[test]
    fn a_circle_is_found_and_its_absence_is_too() {
        let uses = |pairs: &[(&str, &str)]| {
            let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (user, used) in pairs {
                uses.entry((*user).to_owned())
                    .or_default()
                    .insert((*used).to_owned());
            }
            uses
        };
        assert_eq!(circle(&uses(&[("a", "b"), ("a", "c"), ("b", "c")])), None);
        let found = circle(&uses(&[("a", "b"), ("b", "c"), ("c", "b")]));
        assert_eq!(found, Some(vec!["b".to_owned(), "c".to_owned()]));
    }
}
