//! `tandem up`: starts, supervises and stops the processes, and reports why it cannot.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use serde_json::json;
use tandem_backends::free_port;

use crate::support::{
    Client, LIMIT, Signal, Tandem, is_alive, poll, poll_for, signal, tandem_command,
};

/// How long it may take on a slow machine until a hanging process is noticed and restarted.
const PATIENCE: Duration = Duration::from_secs(180);

/// Runs a command that must fail, and returns its one sentence.
#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let answer = tandem_command().args(arguments).output().unwrap();
    let errors = String::from_utf8(answer.stderr).unwrap();
    assert!(!answer.status.success(), "{errors}");
    assert_eq!(errors.trim_end().lines().count(), 1, "{errors}");
    errors
}

#[track_caller]
fn all_gone(children: &[u32]) {
    for child in children {
        poll(&format!("process {child} has ended"), || {
            (!is_alive(*child)).then_some(())
        });
    }
}

#[test]
fn everything_answers_once_it_says_ready() {
    let tandem = Tandem::start();

    let children = tandem.children();
    assert_eq!(children.len(), 4);
    assert!(children.iter().all(|child| is_alive(*child)));
    for port in [
        tandem.accounts,
        tandem.orders,
        tandem.gateway,
        tandem.broker,
    ] {
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        assert!(tandem.process.output().contains(&port.to_string()));
    }
    assert!(tandem.process.output().contains("curl "));
}

#[test]
fn no_command_means_up() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();

    let answer = tandem_command()
        .env("TANDEM_DATA_DIR", directory.path())
        .env("TANDEM_GATEWAY_PORT", &port)
        .env("TANDEM_ACCOUNTS_PORT", free_port().unwrap().to_string())
        .env("TANDEM_ORDERS_PORT", free_port().unwrap().to_string())
        .env("TANDEM_BROKER_PORT", free_port().unwrap().to_string())
        .output()
        .unwrap();

    let errors = String::from_utf8(answer.stderr).unwrap();
    assert!(
        errors.contains(&port) && errors.contains("--gateway-port"),
        "{errors}"
    );
}

#[test]
fn ctrl_c_stops_all_in_under_five_seconds() {
    let mut tandem = Tandem::start();
    let children = tandem.children();
    let begin = Instant::now();

    tandem.process.signal(Signal::INT);

    let status = tandem.process.wait_for_end(LIMIT);
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(status.code(), Some(0));
    assert!(!children.iter().any(|child| is_alive(*child)));
    let (output, _) = tandem.process.all_output();
    assert!(output.contains("Ctrl-C once more"), "{output}");
}

#[test]
fn ctrl_c_twice_ends_every_process_before_up_ends() {
    let mut tandem = Tandem::start();
    let children = tandem.children();
    // Paused, so that none of them handles the signal to end.
    for child in &children {
        signal(*child, Signal::STOP);
    }

    tandem.process.signal(Signal::INT);
    poll("the first one is heard", || {
        let output = tandem.process.output();
        output.contains("Ctrl-C once more").then_some(())
    });
    tandem.process.signal(Signal::INT);

    let status = tandem.process.wait_for_end(LIMIT);
    assert!(!children.iter().any(|child| is_alive(*child)));
    assert_eq!(status.code(), Some(70));
}

#[test]
fn a_killed_up_leaves_no_child_and_its_data_can_be_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut tandem = Tandem::builder().data_dir(directory.path()).start();
    let children = tandem.children();
    assert_eq!(children.len(), 4);

    tandem.process.signal(Signal::KILL);

    tandem.process.wait_for_end(LIMIT);
    all_gone(&children);
    Tandem::builder().data_dir(directory.path()).start();
}

#[test]
fn a_killed_child_is_started_again() {
    let tandem = Tandem::start();
    for service in ["accounts", "broker"] {
        let before = tandem.child(service).unwrap();

        signal(before, Signal::KILL);

        let after = poll("another process", || {
            tandem.child(service).filter(|child| *child != before)
        });
        poll("it answers", || {
            tandem
                .process
                .output()
                .contains(&format!("{service} answers again"))
                .then_some(())
        });
        assert!(is_alive(after));
    }
    let output = tandem.process.output();
    assert!(output.contains("was ended by signal 9"), "{output}");
}

#[test]
fn a_process_that_hangs_is_ended_and_started_again() {
    let tandem = Tandem::builder()
        .env("TANDEM_HANG_LIMIT_SECONDS", "5")
        .start();
    for service in ["orders", "router", "broker"] {
        let before = tandem.child(service).unwrap();

        signal(before, Signal::STOP);

        let after = poll_for(PATIENCE, "another process", || {
            tandem.child(service).filter(|child| *child != before)
        });
        poll_for(PATIENCE, "it answers", || {
            tandem
                .process
                .output()
                .contains(&format!("{service} answers again"))
                .then_some(())
        });
        assert!(is_alive(after) && !is_alive(before));
        let output = tandem.process.output();
        let said = format!("{service} (pid {before}) answered nothing for ");
        assert!(output.contains(&said), "{output}");
    }
}

#[test]
fn a_process_that_faults_dies_at_once_and_up_says_what_it_was_serving() {
    let tandem = Tandem::start();
    let client = Client::new();
    tandem.customer(&client, "1");
    let waits =
        "query OrderingCustomer($id: ID!) { orderingCustomer(id: $id, minRevision: 99) { id } }";
    for (service, url) in [
        ("orders", tandem.orders_url("/graphql")),
        ("router", tandem.gateway_url("/graphql")),
    ] {
        let before = tandem.child(service).unwrap();
        let asking = std::thread::spawn(move || {
            // The connection breaks off.
            let _ = Client::new().try_graphql(&url, waits, json!({"id": "1"}));
        });
        let file = tandem.data_dir().join(format!("logs/{service}.serving"));
        poll("it is being served", || {
            let noted = std::fs::read(&file).ok()?;
            String::from_utf8_lossy(&noted)
                .contains(" OrderingCustomer")
                .then_some(())
        });

        // Like a stack overflow does.
        signal(before, Signal::ABORT);

        let said = format!("{service} was serving: POST /graphql ");
        let line = poll("it says so", || {
            let output = tandem.process.output();
            let line = output.lines().find(|line| line.contains(&said))?;
            Some(line.to_owned())
        });
        assert!(line.ends_with(" OrderingCustomer"), "{line}");
        let ended = format!("{service} (pid {before}) was ended by signal 6");
        assert!(tandem.process.output().contains(&ended));
        asking.join().unwrap();
        poll("it answers", || {
            let again = format!("{service} answers again");
            tandem.process.output().contains(&again).then_some(())
        });
    }
}

#[test]
fn with_no_restart_a_killed_child_stays_dead_and_the_rest_carries_on() {
    let mut tandem = Tandem::builder().flag("--no-restart").start();
    let accounts = tandem.child("accounts").unwrap();

    signal(accounts, Signal::KILL);

    poll("it says so", || {
        tandem
            .process
            .output()
            .contains("accounts stays down")
            .then_some(())
    });
    assert_eq!(tandem.child("accounts"), Some(accounts));
    for service in ["broker", "orders", "router"] {
        assert!(is_alive(tandem.child(service).unwrap()));
    }
    tandem.process.signal(Signal::TERM);
    assert_eq!(tandem.process.wait_for_end(LIMIT).code(), Some(0));
}

#[test]
fn a_second_up_on_the_same_data_is_refused() {
    let tandem = Tandem::start();

    let sentence = refused(&["up", "--data-dir", tandem.data_dir().to_str().unwrap()]);

    assert!(
        sentence.contains(&tandem.process.id().to_string()),
        "{sentence}"
    );
    assert!(sentence.contains("--data-dir"), "{sentence}");
}

#[test]
fn a_taken_port_is_named_with_its_flag() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let directory = directory.path().to_str().unwrap();
    for service in ["accounts", "orders", "gateway", "broker"] {
        let flag = format!("--{service}-port");
        let others: Vec<String> = ["accounts", "orders", "gateway", "broker"]
            .iter()
            .filter(|other| **other != service)
            .flat_map(|other| [format!("--{other}-port"), free_port().unwrap().to_string()])
            .collect();
        let mut arguments = vec!["up", "--data-dir", directory, &flag, &port];
        arguments.extend(others.iter().map(String::as_str));

        let sentence = refused(&arguments);

        assert!(
            sentence.contains(&flag) && sentence.contains(&port),
            "{sentence}"
        );
    }
}

#[test]
fn all_taken_ports_are_named_at_once() {
    let running = Tandem::start();
    let directory = tempfile::tempdir().unwrap();
    let ports = [
        ("accounts", running.accounts),
        ("orders", running.orders),
        ("gateway", running.gateway),
        ("broker", running.broker),
    ];
    let mut arguments = vec![
        "up".to_owned(),
        "--data-dir".to_owned(),
        directory.path().to_str().unwrap().to_owned(),
    ];
    for (service, port) in ports {
        arguments.push(format!("--{service}-port={port}"));
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();

    let sentence = refused(&arguments);

    for (service, port) in ports {
        assert!(
            sentence.contains(&format!("{port} for {service}"))
                && sentence.contains(&format!("--{service}-port")),
            "{sentence}"
        );
    }
    assert!(sentence.contains("another `tandem up`"), "{sentence}");
}

#[test]
fn a_lost_sealing_key_is_not_replaced_beside_what_it_sealed() {
    let directory = tempfile::tempdir().unwrap();
    let mut tandem = Tandem::builder().data_dir(directory.path()).start();
    tandem.process.signal(Signal::TERM);
    tandem.process.wait_for_end(LIMIT);
    let file = directory.path().join("sealing.key");
    fs::remove_file(&file).unwrap();

    let mut again = Tandem::builder().data_dir(directory.path()).spawn();

    assert!(!again.process.wait_for_end(LIMIT).success());
    let (_, told) = again.process.all_output();
    assert!(
        told.contains("sealing.key is gone") && told.contains("--sealing-key-file"),
        "{told}"
    );
    assert!(!file.exists(), "another key stands in its place");
}

#[test]
fn one_port_for_two_services_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port().unwrap().to_string();

    let sentence = refused(&[
        "up",
        "--data-dir",
        directory.path().to_str().unwrap(),
        "--accounts-port",
        &port,
        "--orders-port",
        &port,
    ]);

    assert!(
        sentence.contains("--accounts-port") && sentence.contains("--orders-port"),
        "{sentence}"
    );
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    // A file in place of the directory. Permissions do not stop a superuser, and tests may run as one.
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();

    let sentence = refused(&["up", "--data-dir", file.join("data").to_str().unwrap()]);

    assert!(
        sentence.contains("--data-dir") && sentence.contains("a file is where"),
        "{sentence}"
    );
}

#[test]
fn a_wrong_setting_is_one_sentence() {
    for (arguments, expected) in [
        (&["up", "--accounts-port", "0"][..], "--accounts-port"),
        (&["up", "--accounts-port", "x"], "--accounts-port"),
        (&["up", "--acounts-port", "8080"], "--accounts-port"),
        (&["up", "--kafka-property", "novalue"], "KEY=VALUE"),
        (
            &["--config", "/nowhere/tandem.toml"],
            "/nowhere/tandem.toml",
        ),
        (&["upp"], "upp"),
        (&["up", "--port", "9090"], "`tandem up --help`"),
        (&["audit", "customer"], "`tandem audit customer --help`"),
        (&["stop"], "Ctrl-C"),
        (&["status"], "`tandem doctor`"),
        (
            &["rebuild", "orders", "--orders-url", "localhost:8085"],
            "http://HOST:PORT",
        ),
    ] {
        let sentence = refused(arguments);
        assert!(sentence.contains(expected), "{sentence}");
    }
}

#[test]
fn a_service_that_refuses_its_settings_is_quoted_and_everything_stops() {
    let mut tandem = Tandem::builder()
        .flag("--kafka-property")
        .flag("no.such.property=1")
        .spawn();

    let status = tandem.process.wait_for_end(LIMIT);

    assert!(!status.success());
    let errors = tandem.process.errors();
    assert!(
        errors.contains("did not start") && errors.contains("no.such.property"),
        "{errors}"
    );
    all_gone(&tandem.children());
}

#[test]
fn the_sealing_key_is_made_once_and_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sealing.key");
    drop(Tandem::builder().data_dir(directory.path()).start());
    let first = fs::read_to_string(&file).unwrap();
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );

    drop(Tandem::builder().data_dir(directory.path()).start());

    assert_eq!(fs::read_to_string(&file).unwrap(), first);
}

#[test]
fn the_help_tells_of_every_command_and_setting() {
    let help = |arguments: &[&str]| {
        let answer = tandem_command().args(arguments).output().unwrap();
        assert!(answer.status.success());
        String::from_utf8(answer.stdout).unwrap()
    };
    let all = help(&["--help"]);
    for command in [
        "up",
        "accounts",
        "orders",
        "router",
        "broker",
        "--config",
        "--log",
        "--worker-threads",
    ] {
        assert!(all.contains(command), "{command} is missing: {all}");
    }
    let up = help(&["up", "--help"]);
    for setting in [
        "--data-dir",
        "--accounts-port",
        "--orders-port",
        "--gateway-port",
        "--broker-port",
        "--mongodb-uri",
        "--kafka-brokers",
        "--kafka-property",
        "--no-restart",
        "TANDEM_DATA_DIR",
    ] {
        assert!(up.contains(setting), "{setting} is missing: {up}");
    }
}
