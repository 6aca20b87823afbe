//! Tests of the dependency directions in ARCHITECTURE.md, "Invariants".
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use tandem_architecture::{circle, code, is_for_tests, modules, packages, root, sources};

/// What each package may need of the others. A package that is not listed is a leaf: it may need `runtime` and `model`.
const ALLOWED: &[(&str, &[&str])] = &[
    ("runtime", &[]),
    ("model", &[]),
    ("event-path", &["runtime", "model"]),
    ("log-kafka", &["runtime", "model", "event-path"]),
    ("store-mongodb", &["runtime", "model", "event-path"]),
    ("store-redb", &["runtime", "model", "event-path"]),
    // They know nothing of Tandem except its scopes.
    ("authentication", &[]),
    ("front-door", &["authentication", "runtime"]),
    (
        "service",
        &["runtime", "model", "web", "authentication", "front-door"],
    ),
    (
        "assembly",
        &[
            "runtime",
            "model",
            "authentication",
            "event-path",
            "service",
            "front-door",
            "store-mongodb",
            "store-redb",
        ],
    ),
    // Only for tests.
    (
        "store-contract",
        &["model", "event-path", "store-mongodb", "store-redb"],
    ),
    ("event-contract", &["model"]),
    (
        "simulation",
        &[
            "runtime",
            "model",
            "event-path",
            "store-contract",
            "assembly",
            "accounts",
            "orders",
        ],
    ),
    (
        "fuzzing",
        &[
            "runtime",
            "model",
            "authentication",
            "event-path",
            "event-contract",
            "service",
            "front-door",
            "accounts",
            "orders",
        ],
    ),
    // The services, and the packages that start them.
    (
        "accounts",
        &[
            "runtime",
            "model",
            "authentication",
            "event-path",
            "log-kafka",
            "service",
            "assembly",
            "web",
        ],
    ),
    (
        "orders",
        &[
            "runtime",
            "model",
            "authentication",
            "event-path",
            "log-kafka",
            "service",
            "assembly",
            "store-mongodb",
            "store-redb",
            "web",
        ],
    ),
];

/// Libraries that only these packages may need, so that no other package has to know how to use them.
const OWNED: &[(&str, &[&str])] = &[
    ("rdkafka", &["log-kafka", "backends"]),
    ("mongodb", &["store-mongodb", "orders", "backends"]),
    ("redb", &["store-redb", "embedded-broker", "orders"]),
    ("hive-router", &["tandem"]),
    ("opentelemetry-otlp", &["trace-export"]),
    ("opentelemetry_sdk", &["trace-export"]),
    // The gateway reads the trace of its router's spans.
    ("opentelemetry", &["runtime", "trace-export", "tandem"]),
    ("async-graphql", &["service", "accounts", "orders"]),
];

/// What domain code must not name.
const NOT_IN_A_DOMAIN: &[&str] = &[
    "async_graphql",
    "axum",
    "rdkafka",
    "mongodb",
    "bson",
    "redb",
    "tokio",
    "tandem_service",
    "tandem_assembly",
    "tandem_event_path",
    "tandem_log_kafka",
    "tandem_store_mongodb",
    "tandem_store_redb",
    "crate::graphql",
    "crate::rest",
    "crate::stores",
    "crate::service",
    "Utc::now",
    "SystemTime",
    "Instant",
    "now_v7",
    "new_v4",
    "rand::",
];

#[test]
fn packages_need_only_what_the_architecture_allows() {
    let packages = packages();
    let ours: BTreeSet<&str> = packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in &packages {
        if package.name == "tandem" {
            // The command assembles everything, but stores nothing itself.
            continue;
        }
        let may = allowed
            .get(package.name.as_str())
            .copied()
            .unwrap_or(&["runtime", "model"]);
        for needed in &package.needs {
            if ours.contains(needed.as_str()) && !may.contains(&needed.as_str()) {
                wrong.push(format!("{} needs {needed}", package.name));
            }
        }
    }
    assert!(wrong.is_empty(), "against ARCHITECTURE.md: {wrong:#?}");
}

#[test]
fn a_library_that_one_package_owns_is_needed_by_no_other() {
    let mut wrong = Vec::new();
    for package in packages() {
        for (library, owners) in OWNED {
            if package.needs.contains(*library) && !owners.contains(&package.name.as_str()) {
                wrong.push(format!("{} needs {library}", package.name));
            }
        }
    }
    assert!(wrong.is_empty(), "against ARCHITECTURE.md: {wrong:#?}");
}

#[test]
fn accounts_and_orders_do_not_name_each_other() {
    let mut wrong = Vec::new();
    for (service, other) in [("accounts", "tandem_orders"), ("orders", "tandem_accounts")] {
        for file in sources(&root().join("subgraphs").join(service)) {
            if code(&file).contains(other) {
                wrong.push(format!("{} names {other}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_domain_knows_no_adapter_no_clock_and_no_chance() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for service in ["accounts", "orders"] {
        for file in sources(&root().join("subgraphs").join(service).join("src/domain")) {
            if file.file_stem().is_some_and(|name| name == "tests") {
                continue;
            }
            seen += 1;
            let code = code(&file);
            for forbidden in NOT_IN_A_DOMAIN {
                if code.contains(forbidden) {
                    wrong.push(format!("{} names {forbidden}", file.display()));
                }
            }
        }
    }
    assert!(seen > 10, "the domains were looked for in the wrong place");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Packages that run in virtual time in a simulation.
const IN_VIRTUAL_TIME: &[&str] = &[
    "runtime",
    "model",
    "event-path",
    "assembly",
    "accounts",
    "orders",
    "simulation",
];

#[test]
fn the_operating_systems_clock_and_chance_are_forbidden_in_every_package() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(
        manifest.contains("\ndisallowed_methods = \"warn\"\n"),
        "clippy.toml is in force by this line of the workspace's manifest"
    );
    let packages = packages();
    let not_held: Vec<_> = packages
        .iter()
        .filter(|package| {
            let manifest = std::fs::read_to_string(package.folder.join("Cargo.toml")).unwrap();
            !manifest.contains("\n[lints]\nworkspace = true\n")
        })
        .map(|package| &package.name)
        .collect();
    assert!(not_held.is_empty(), "without our lints: {not_held:?}");
}

/// Files of these packages that may use real time and randomness: those that own them, and those where they decide
/// nothing.
const ASK_THE_SYSTEM: &[&str] = &[
    "crates/runtime/src/clock.rs",
    "crates/runtime/src/shutdown.rs",
    "crates/runtime/src/trace_context.rs",
    "crates/simulation/src/main.rs",
    "crates/simulation/src/process.rs",
    "crates/simulation/src/world.rs",
];

#[test]
fn what_runs_in_virtual_time_asks_the_operating_system_for_none() {
    let mut asking = BTreeSet::new();
    for package in packages() {
        if !IN_VIRTUAL_TIME.contains(&package.name.as_str()) {
            continue;
        }
        let folder = package.folder.join("src");
        for file in sources(&folder) {
            if !is_for_tests(file.strip_prefix(&folder).unwrap()) && may_ask(&code(&file)) {
                let below = file.strip_prefix(root()).unwrap();
                asking.insert(below.display().to_string());
            }
        }
    }
    let allowed: BTreeSet<_> = ASK_THE_SYSTEM
        .iter()
        .map(|file| (*file).to_owned())
        .collect();
    assert_eq!(asking, allowed);
}

/// Whether code takes an exception from clippy.toml, apart from its tests.
fn may_ask(code: &str) -> bool {
    ["#[allow(", "#![allow(", "#[expect(", "#![expect("]
        .iter()
        .flat_map(|exception| code.split(exception).skip(1))
        .filter_map(|rest| rest.split(")]").next())
        .any(|lints| lints.contains("clippy::disallowed_methods"))
}

#[test]
fn an_exception_from_the_lint_is_seen_in_each_of_its_forms() {
    assert!(may_ask(
        "#[expect(\n    clippy::disallowed_methods,\n    reason = \"\"\n)]\nfn f() {}"
    ));
    assert!(may_ask("#![allow(clippy::disallowed_methods)]"));
    assert!(!may_ask(
        "#[allow(dead_code)]\n#![cfg_attr(test, allow(clippy::disallowed_methods))]"
    ));
}

/// Files that spawn tasks without `Shutdown::spawn`: its own implementation, and code for HTTP, which is not simulated.
/// The latter is sending to a REST client, and republishing data keys, which goes on when the operator disconnects.
const SPAWNS: &[&str] = &[
    "crates/runtime/src/shutdown.rs",
    "crates/assembly/src/admin/keys.rs",
    "subgraphs/orders/src/rest/sending.rs",
];

#[test]
fn what_runs_in_virtual_time_has_its_tasks_from_shutdown() {
    let packages = packages();
    let mut wrong = Vec::new();
    for package in &packages {
        if !IN_VIRTUAL_TIME.contains(&package.name.as_str()) {
            continue;
        }
        let folder = package.folder.join("src");
        for file in sources(&folder) {
            if is_for_tests(file.strip_prefix(&folder).unwrap()) {
                continue;
            }
            let text = code(&file);
            let spawns = ["tokio::spawn(", "task::spawn(", "spawn_local("]
                .iter()
                .any(|call| text.contains(call));
            if spawns && !SPAWNS.iter().any(|known| file.ends_with(known)) {
                wrong.push(file.display().to_string());
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "their tasks are not in a simulation's hands: {wrong:#?}"
    );
}

#[test]
fn the_modules_of_a_package_use_each_other_in_no_circle() {
    let mut found = BTreeSet::new();
    for package in packages() {
        if !package.folder.join("src").is_dir() {
            continue;
        }
        for (level, uses) in modules(&package) {
            if let Some(circle) = circle(&uses) {
                found.insert(format!("{} {level}: {}", package.name, circle.join(" -> ")));
            }
        }
    }
    assert!(found.is_empty(), "circles: {found:#?}");
}
