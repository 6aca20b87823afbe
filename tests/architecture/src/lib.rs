//! Reads the workspace from its manifests and sources, for the tests of the architecture.
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
    /// The packages that it needs in order to be built, apart from tests. Ours without `tandem-`, others under their
    /// own name.
    pub needs: BTreeSet<String>,
}

/// The packages of the workspace, as reported by cargo.
///
/// # Panics
/// When cargo fails.
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

/// The text of a file without its comments and without modules that are compiled only for tests.
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
                // In rustfmt's layout only the end of the module is at the margin.
                lines.by_ref().find(|line| *line == "}");
            }
        } else if !line.trim_start().starts_with("//") {
            shipped.push(line);
        }
    }
    shipped.join("\n")
}

/// The names on the path from the crate root to a module. Empty for the root.
type ModulePath = Vec<String>;

/// For each module that has submodules, by its path: which of these use which others. Everything below a submodule
/// counts as that submodule. A re-exported item counts as belonging to the module that it comes from.
///
/// # Panics
/// When a file cannot be read.
#[must_use]
pub fn modules(package: &Package) -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
    let folder = package.folder.join("src");
    let mut texts: BTreeMap<ModulePath, String> = BTreeMap::new();
    for file in sources(&folder) {
        let below = file.strip_prefix(&folder).expect("it was found there");
        if let Some(module) = module_path(below) {
            // A package may have two roots, a library and a binary.
            let text = texts.entry(module).or_default();
            text.push_str(&code(&file));
            text.push('\n');
        }
    }
    levels(&texts)
}

/// Whether a file is only for tests, judged by its path below `src`.
#[must_use]
pub fn is_for_tests(file: &Path) -> bool {
    let file = file.with_extension("");
    let mut parts = file.iter().filter_map(|part| part.to_str());
    parts.any(|part| {
        matches!(part, "tests" | "test_support" | "contract") || part.ends_with("_tests")
    })
}

/// The module that a file below `src` defines. `None` if the file is only for tests.
fn module_path(file: &Path) -> Option<ModulePath> {
    if is_for_tests(file) {
        return None;
    }
    let mut path: ModulePath = file
        .with_extension("")
        .iter()
        .map(|part| part.to_str().map(str::to_owned))
        .collect::<Option<_>>()?;
    if path.len() == 1 && matches!(path[0].as_str(), "lib" | "main")
        || path.last().is_some_and(|last| last == "mod")
    {
        path.pop();
    }
    Some(path)
}

fn levels(
    code: &BTreeMap<ModulePath, String>,
) -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
    let mut exported: BTreeMap<(ModulePath, String), ModulePath> = BTreeMap::new();
    for (module, text) in code {
        for path in paths(&exports(text)) {
            let (from, rest) = resolved(module, &path, code);
            if let [name] = rest
                && from != *module
            {
                exported.insert((module.clone(), name.clone()), from);
            }
        }
    }
    let mut levels: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (user, text) in code {
        for path in paths(text) {
            let (mut used, rest) = resolved(user, &path, code);
            // A re-exported name may itself be a re-export.
            for _ in 0..code.len() {
                let Some(name) = rest.first() else { break };
                match exported.get(&(used.clone(), name.clone())) {
                    Some(from) => used.clone_from(from),
                    None => break,
                }
            }
            let shared = user.iter().zip(&used);
            let shared = shared.take_while(|(one, other)| one == other).count();
            if let (Some(from), Some(to)) = (user.get(shared), used.get(shared)) {
                let level = levels.entry(user[..shared].join("::")).or_default();
                level.entry(from.clone()).or_default().insert(to.clone());
            }
        }
    }
    levels
}

/// The statements of a text that re-export, each with a path that begins with `crate`, `super` or `self`.
fn exports(code: &str) -> String {
    let mut found = String::new();
    for statement in code.split(';') {
        let Some((before, exported)) = statement.rsplit_once("use ") else {
            continue;
        };
        let line = before.rsplit('\n').next().unwrap_or_default().trim();
        if !(line == "pub" || line.starts_with("pub(") && line.ends_with(')')) {
            continue;
        }
        let is_whole = ["crate::", "super::", "self::"]
            .iter()
            .any(|begin| exported.starts_with(begin));
        found.push_str(if is_whole { "" } else { "self::" });
        found.push_str(exported);
        found.push_str(";\n");
    }
    found
}

fn is_part(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// The paths in a text that begin with `crate`, `super` or `self`, as lists of their parts. Includes paths in braces.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for begin in ["crate", "super", "self"] {
        for (at, _) in code.match_indices(&format!("{begin}::")) {
            let before = code[..at].chars().next_back();
            if !before.is_some_and(|before| is_part(before) || before == ':') {
                let rest = &code[at + begin.len() + 2..];
                paths_behind(&[begin.to_owned()], rest, &mut found);
            }
        }
    }
    found
}

/// Finds the paths that continue from a beginning. Returns the rest of the text.
fn paths_behind<'c>(begin: &[String], code: &'c str, found: &mut Vec<Vec<String>>) -> &'c str {
    let code = code.trim_start();
    if let Some(mut rest) = code.strip_prefix('{') {
        loop {
            rest = rest.trim_start_matches(|it: char| it.is_whitespace() || it == ',');
            if rest.is_empty() {
                return rest;
            }
            if let Some(behind) = rest.strip_prefix('}') {
                return behind;
            }
            rest = paths_behind(begin, rest, found);
        }
    }
    let name_of = |text: &str| text.find(|it: char| !is_part(it)).unwrap_or(text.len());
    let (name, rest) = code.split_at(name_of(code));
    if name.is_empty() {
        // Either the whole beginning is a path, or there is none here.
        found.push(begin.to_vec());
        let mut behind = code.chars();
        behind.next();
        return behind.as_str();
    }
    let path = [begin, &[name.to_owned()]].concat();
    if let Some(deeper) = rest.strip_prefix("::").filter(|it| !it.starts_with('<')) {
        return paths_behind(&path, deeper, found);
    }
    found.push(path);
    match rest.trim_start().strip_prefix("as ") {
        Some(renamed) => &renamed[name_of(renamed)..],
        None => rest,
    }
}

/// The innermost module that a path names from within a module, and the rest of the path.
fn resolved<'p>(
    module: &[String],
    path: &'p [String],
    known: &BTreeMap<ModulePath, String>,
) -> (ModulePath, &'p [String]) {
    let begin = path.first().map(String::as_str);
    let mut at = match begin {
        Some("crate") => ModulePath::new(),
        _ => module.to_vec(),
    };
    let mut rest = match begin {
        Some("crate" | "self") => &path[1..],
        _ => path,
    };
    while let [name, behind @ ..] = rest {
        if name == "super" {
            at.pop();
        } else {
            at.push(name.clone());
            if !known.contains_key(&at) {
                at.pop();
                break;
            }
        }
        rest = behind;
    }
    (at, rest)
}

/// A cycle among these modules, if there is one.
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

    fn crate_of(files: &[(&str, &str)]) -> BTreeMap<ModulePath, String> {
        let files = files.iter();
        files
            .filter_map(|(file, text)| Some((module_path(Path::new(file))?, shipped(text))))
            .collect()
    }

    fn used(files: &[(&str, &str)], level: &str, user: &str) -> Vec<String> {
        let levels = levels(&crate_of(files));
        let uses = levels.get(level).and_then(|uses| uses.get(user));
        uses.into_iter().flatten().cloned().collect()
    }

    #[test]
    fn paths_are_found_alone_and_in_braces() {
        let code = "use crate::{\n    log::{Log, store},\n    outbox as o,\n};\nuse super::super::X;\nlet x = crate::sealing::y();\nlet y = other_crate::z();";
        let found: BTreeSet<String> = paths(code).iter().map(|path| path.join("::")).collect();
        let expected = [
            "crate::log::Log",
            "crate::log::store",
            "crate::outbox",
            "super::super::X",
            "crate::sealing::y",
        ];
        assert_eq!(found, BTreeSet::from(expected.map(str::to_owned)));
    }

    #[test]
    fn what_is_behind_a_module_of_tests_is_looked_at_too() {
        let text = "use crate::log;\n#[cfg(test)]\nmod tests;\nuse crate::outbox;\n// use crate::store;\n#[cfg(test)]\nmod more {\n    use crate::event::X;\n}\nuse crate::sealing;";
        let mut files = vec![("relay.rs", text)];
        let others = ["log.rs", "outbox.rs", "store.rs", "event.rs", "sealing.rs"];
        files.extend(others.map(|file| (file, "")));
        assert_eq!(used(&files, "", "relay"), ["log", "outbox", "sealing"]);
    }

    #[test]
    fn a_module_beside_is_found_also_by_way_of_its_parent() {
        let files = [
            ("lib.rs", "mod answers;\nmod statement;\nmod read;\n"),
            ("answers.rs", "use super::{Store, statement::Statement};"),
            ("statement.rs", "use super::answers::Mark;"),
            ("read.rs", ""),
        ];
        assert_eq!(used(&files, "", "answers"), ["statement"]);
        let found = circle(&levels(&crate_of(&files))[""]);
        let expected = ["answers", "statement"].map(str::to_owned);
        assert_eq!(found, Some(expected.to_vec()));
    }

    #[test]
    fn what_is_exported_counts_as_where_it_comes_from() {
        let files = [
            (
                "lib.rs",
                "mod file;\nmod registry;\npub use file::{Broken, Store};\npub(crate) use registry::TABLE;\n",
            ),
            ("file.rs", "use crate::TABLE;"),
            ("registry.rs", "use super::Store;"),
        ];
        assert_eq!(used(&files, "", "file"), ["registry"]);
        assert_eq!(used(&files, "", "registry"), ["file"]);
    }

    #[test]
    fn modules_of_a_module_are_looked_at_too_and_those_for_tests_are_not() {
        let files = [
            ("live/mod.rs", "mod cursor;\nmod orders;\n"),
            ("live/cursor.rs", "use super::orders::Seen;"),
            ("live/orders.rs", "mod seen;\npub use seen::Seen;\n"),
            ("live/orders/seen.rs", "use crate::live::cursor::Cursor;"),
            ("live/feed_tests.rs", "use super::cursor::Cursor;"),
            ("live/tests/held_back.rs", "use crate::live::cursor;"),
        ];
        assert_eq!(used(&files, "live", "cursor"), ["orders"]);
        assert_eq!(used(&files, "live", "orders"), ["cursor"]);
        assert_eq!(levels(&crate_of(&files))["live"].len(), 2);
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
