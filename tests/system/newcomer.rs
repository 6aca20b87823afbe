//! The first hour of a new user: commands find the running system, help works, and errors say what would be right.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    process::{Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;
use tandem_backends::free_port;

use crate::support::{
    Client, LIMIT, Process, Signal, Tandem, is_alive, poll, signal, tandem_command,
};

fn run(arguments: &[&str]) -> Output {
    tandem_command().args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn an_operators_commands_find_the_running_system_by_its_data_directory() {
    let mut tandem = Tandem::start();
    tandem.customer(&Client::new(), "found");
    let directory = tandem.data_dir().to_str().unwrap().to_owned();
    let file = tandem.data_dir().join("up.json");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    poll("the audit shows the creation", || {
        let audit = run(&["audit", "customer", "found", "--data-dir", &directory]);
        text(&audit.stdout).contains("CREATED").then_some(())
    });
    // A flag may come before or after the last word.
    for words in [
        &["rebuild", "orders", "--data-dir", &directory][..],
        &["rebuild", "--data-dir", &directory, "accounts"],
        &[
            "dead-letters",
            "list",
            "--service",
            "orders",
            "--data-dir",
            &directory,
        ],
        &[
            "dead-letters",
            "--data-dir",
            &directory,
            "--service",
            "accounts",
            "list",
        ],
        &["audit", "--data-dir", &directory, "customer", "found"],
        &[
            "--log",
            "warn",
            "audit",
            "customer",
            "found",
            "--data-dir",
            &directory,
        ],
    ] {
        let answer = run(words);
        assert!(answer.status.success(), "{words:?}: {answer:?}");
    }

    let before = tandem.child("orders").unwrap();
    signal(before, Signal::KILL);
    let processes = || -> Value { serde_json::from_slice(&fs::read(&file).unwrap()).unwrap() };
    poll("the file names the new process", || {
        let now = processes()["processes"]["orders"].as_u64()?;
        (now != u64::from(before) && is_alive(u32::try_from(now).unwrap())).then_some(())
    });

    tandem.process.signal(Signal::TERM);
    tandem.process.wait_for_end(LIMIT);
    assert!(!file.exists(), "what runs no more is not named any more");
}

#[test]
fn a_system_that_was_killed_is_not_taken_for_a_running_one() {
    let directory = tempfile::tempdir().unwrap();
    let mut tandem = Tandem::builder().data_dir(directory.path()).start();
    let id = tandem.process.id().to_string();
    tandem.process.signal(Signal::KILL);
    tandem.process.wait_for_end(LIMIT);

    let port = free_port().unwrap();
    let answer = run(&[
        "doctor",
        "--data-dir",
        directory.path().to_str().unwrap(),
        "--accounts-url",
        &format!("http://127.0.0.1:{port}"),
    ]);

    let told = text(&answer.stdout);
    assert!(told.contains("has ended") && told.contains(&id), "{told}");
}

#[test]
fn what_cannot_be_reached_is_told_with_its_reason_and_what_would_be_right() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let nowhere = free_port().unwrap();
    let broker = format!("127.0.0.1:{nowhere}");
    let url = format!("http://{broker}");
    fs::write(directory.path().join("sealing.key"), "A".repeat(43) + "=\n").unwrap();
    for (words, expected) in [
        (
            &[
                "audit",
                "customer",
                "x",
                "--data-dir",
                data,
                "--kafka-brokers",
                &broker,
            ][..],
            "--kafka-brokers",
        ),
        (
            &[
                "rebuild",
                "orders",
                "--data-dir",
                data,
                "--orders-url",
                &url,
            ],
            "--orders-url",
        ),
        (
            &[
                "dead-letters",
                "list",
                "--service",
                "accounts",
                "--accounts-url",
                &url,
                "--data-dir",
                data,
            ],
            "--accounts-url",
        ),
    ] {
        let answer = run(words);
        let told = text(&answer.stderr);
        assert!(!answer.status.success());
        assert_eq!(told.trim_end().lines().count(), 1, "{told}");
        assert!(
            told.to_lowercase().contains("refused") && told.contains(expected),
            "{told}"
        );
        assert!(!told.contains("transport"), "{told}");
    }
}

#[test]
fn a_command_does_nothing_to_a_service_that_is_another_than_it_means() {
    let tandem = Tandem::start();
    let directory = tandem.data_dir().to_str().unwrap().to_owned();
    for (meant, url, found) in [
        ("accounts", tandem.orders_url(""), "orders"),
        ("orders", tandem.gateway_url(""), "gateway"),
    ] {
        let flag = format!("--{meant}-url");
        let expected = format!("{url} is {found}, not {meant}");
        let answer = run(&["rebuild", meant, &flag, &url, "--data-dir", &directory]);
        let told = text(&answer.stderr);
        assert!(!answer.status.success(), "{answer:?}");
        assert!(told.contains(&expected) && told.contains(&flag), "{told}");

        let answer = run(&["doctor", &flag, &url, "--data-dir", &directory]);
        let told = text(&answer.stdout);
        assert_eq!(answer.status.code(), Some(1), "{told}");
        assert!(told.contains(&expected), "{told}");
    }
}

#[test]
fn up_says_which_server_it_waits_for_and_why() {
    let nowhere = format!("127.0.0.1:{}", free_port().unwrap());
    let mut tandem = Tandem::builder()
        .kafka(nowhere.clone())
        .flag("--mongodb-uri")
        .flag(format!("mongodb://user:secret@{nowhere}/"))
        .spawn();
    for server in ["Kafka", "MongoDB"] {
        let line = tandem
            .process
            .wait_for_line("the server that is away", |line| {
                line.starts_with(server) && line.contains("cannot be reached")
            });
        assert!(
            line.contains(&nowhere) && line.contains("refused"),
            "{line}"
        );
        assert!(!line.contains("secret"), "{line}");
    }
}

#[test]
fn what_is_no_connection_string_is_refused_without_being_shown() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = tandem_command();
    command.args(["up", "--data-dir", directory.path().to_str().unwrap()]);
    for service in ["accounts", "orders", "gateway", "broker"] {
        command.arg(format!("--{service}-port={}", free_port().unwrap()));
    }
    let answer = command
        .args(["--mongodb-uri", "user:secret@localhost"])
        .output()
        .unwrap();
    let told = text(&answer.stderr);
    assert!(!answer.status.success());
    assert!(
        told.contains("--mongodb-uri") && told.contains("mongodb+srv://"),
        "{told}"
    );
    assert!(!told.contains("secret"), "{told}");
}

#[test]
fn a_command_that_needs_another_word_shows_its_help() {
    for (command, words) in [
        ("audit", &["customer"][..]),
        ("dead-letters", &["list", "retry", "discard"]),
        ("events", &["tail"]),
        ("schema", &["print"]),
    ] {
        let answer = run(&[command]);
        let told = text(&answer.stdout) + &text(&answer.stderr);
        assert_eq!(answer.status.code(), Some(2), "{told}");
        assert!(
            told.contains("Usage:") && !told.contains("tandem: "),
            "{told}"
        );
        assert!(words.iter().all(|word| told.contains(word)), "{told}");
    }
    let help = run(&["help"]);
    assert!(help.status.success() && text(&help.stdout).contains("doctor"));
}

#[test]
fn shells_and_manual_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]);
        assert!(script.status.success(), "{shell}");
        assert!(text(&script.stdout).contains("dead-letters"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man");
    let written = run(&["man", "--to", pages.to_str().unwrap()]);
    assert!(written.status.success(), "{}", text(&written.stderr));
    for page in ["tandem.1", "tandem-up.1", "tandem-events-tail.1"] {
        let page = std::fs::read_to_string(pages.join(page)).unwrap();
        assert!(page.contains(".TH tandem"), "{page}");
    }
    assert!(text(&run(&["man"]).stdout).contains(".TH tandem"));
}

#[test]
fn a_command_whose_reader_has_enough_says_nothing_of_it() {
    for words in [
        &["completions", "bash"][..],
        &["schema", "print", "asyncapi"],
        &["--help"],
    ] {
        let mut command = tandem_command();
        command
            .args(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        drop(process.stdout.take());
        let ended = process.wait_with_output().unwrap();
        let told = text(&ended.stderr);
        assert!(
            ended.status.success() && told.is_empty(),
            "{words:?}: {told}"
        );
    }
}

#[test]
fn a_command_whose_answer_cannot_be_written_fails() {
    for words in [
        &["--version"][..],
        &["--help"],
        &["completions", "bash"],
        &["schema", "print", "accounts"],
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let ended = tandem_command().args(words).stdout(full).output().unwrap();
        let told = text(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{words:?}: {told}");
        assert!(told.contains("standard output cannot be written"), "{told}");
    }
}

#[test]
fn the_version_names_the_commit_and_the_events() {
    let told = text(&run(&["--version"]).stdout);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], concat!("tandem ", env!("CARGO_PKG_VERSION")));
    let commit = lines[1].strip_prefix("commit ").unwrap();
    let is_commit = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(is_commit || commit == "unknown", "{told}");
    assert!(lines[2].contains("customer-change-event:v2"), "{told}");
    assert_eq!(text(&run(&["-V"]).stdout).trim(), lines[0]);
}

#[test]
fn a_misspelt_variable_is_told_with_the_one_that_was_meant() {
    let answer = tandem_command()
        .args(["schema", "print", "accounts"])
        .env("TANDEM_MONGODB_URL", "mongodb://localhost")
        .output()
        .unwrap();

    assert!(answer.status.success());
    let told = text(&answer.stderr);
    assert!(
        told.contains("TANDEM_MONGODB_URL") && told.contains("did you mean TANDEM_MONGODB_URI?"),
        "{told}"
    );
    assert!(!told.contains("localhost"), "{told}");
}

#[test]
fn the_page_of_mistakes_quotes_what_is_said() {
    let page = include_str!("../../docs/mistakes.md");
    for words in [
        &["up", "--port", "9090"][..],
        &["audit", "customer"],
        &["rebuild", "orders", "--orders-url", "localhost:8085"],
    ] {
        let told = text(&run(words).stderr);
        assert!(page.contains(told.trim_end()), "{told}");
    }
    let misspelt = tandem_command()
        .args(["schema", "print", "accounts"])
        .env("TANDEM_MONGODB_URL", "mongodb://localhost")
        .output()
        .unwrap();
    let told = text(&misspelt.stderr);
    assert!(page.contains(told.trim_end()), "{told}");
    let meant = text(&run(&["stop"]).stderr);
    let begin = meant.split(';').next().unwrap();
    assert!(page.contains(begin), "{meant}");
}

#[test]
fn the_doctor_finds_nothing_to_mend_in_a_running_system() {
    let tandem = Tandem::start();
    tandem.customer(&Client::new(), "healthy");
    let directory = tandem.data_dir().to_str().unwrap();

    let answer = poll("the doctor is content", || {
        let answer = run(&["doctor", "--data-dir", directory]);
        answer.status.success().then_some(answer)
    });

    let told = text(&answer.stdout);
    for subject in [
        "settings",
        "data directory",
        "disk",
        "sealing key",
        "signing key",
        "clock",
        "system",
        "accounts",
        "orders",
        "gateway",
        "Kafka",
        "topic",
        "store",
    ] {
        assert!(told.contains(subject), "{subject} is missing: {told}");
    }
    assert!(!told.contains("MEND"), "{told}");
}

#[test]
fn the_doctor_says_what_to_mend() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let nowhere = format!("127.0.0.1:{}", free_port().unwrap());
    fs::write(directory.path().join("sealing.key"), "short").unwrap();
    fs::write(directory.path().join("orders.signing.key"), "short").unwrap();

    let answer = tandem_command()
        .args(["doctor", "--data-dir", data, "--kafka-brokers", &nowhere])
        .args([
            "--mongodb-uri",
            &format!("mongodb://user:secret@{nowhere}/?serverSelectionTimeoutMS=300"),
        ])
        .env("TANDEM_GATEWAY_PORT", &port)
        .env("TANDEM_GATWAY_PORT", "1")
        .output()
        .unwrap();

    let told = text(&answer.stdout);
    assert_eq!(answer.status.code(), Some(1), "{told}");
    for expected in [
        "did you mean TANDEM_GATEWAY_PORT?",
        "the sealing key must be 32 bytes",
        "orders.signing.key: the signing key must be 32 bytes",
        &format!("{port} for gateway cannot be used"),
        "--gateway-port",
        &format!("Kafka at {nowhere} cannot be reached"),
        &format!("mongodb://{nowhere}, database accounts"),
    ] {
        assert!(told.contains(expected), "{expected} is missing: {told}");
    }
    assert!(!told.contains("secret"), "{told}");
}

#[test]
fn the_folder_of_queries_runs_in_its_order_and_can_be_repeated() {
    let tandem = Tandem::start();
    for _ in 0..2 {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/queries/run");
        let mut process = Process::start(Command::new(script).arg(tandem.gateway_url("")));
        let status = process.wait_for_end(Duration::from_secs(120));
        let (output, errors) = process.all_output();
        assert!(status.success(), "{output}\n{errors}");
        assert!(output.contains("\"status\":\"CANCELLED\""), "{output}");
        assert!(output.contains("erasedAt"), "{output}");
        for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/queries")).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            if let Some(name) = name.strip_suffix(".graphql") {
                assert!(
                    output.contains(&format!("== {name}")),
                    "{name} was not sent"
                );
            }
        }
    }
}
