//! Examines the services of a running system through their health endpoints.

use std::{error::Error, time::Duration};

use serde_json::Value;
use tandem_front_door::TlsSettings;

use super::{DoctorSettings, Finding};
use crate::{
    operator::{Service, innermost, what_answers},
    running::Found,
    tls_client::trusting,
};

/// Time limit for one health request. A service's own checks take up to 2 s.
const LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn examine(doctor: &DoctorSettings, found: &Found) -> Vec<Finding> {
    let directory = &doctor.place.data_dir;
    let given = doctor.services.is_given();
    let Some(running) = found.alive() else {
        let told = Finding::good("system", found.told(directory));
        if !given {
            return vec![told];
        }
        let mut findings = vec![told];
        findings.extend(services(doctor, found, None).await);
        return findings;
    };
    let mut findings = vec![Finding::good(
        "system",
        format!(
            "{}; it runs {} (version {})",
            found.told(directory),
            running
                .processes
                .iter()
                .map(|(name, id)| format!("{name} ({id})"))
                .collect::<Vec<_>>()
                .join(", "),
            running.version
        ),
    )];
    findings.extend(services(doctor, found, Some(&running.gateway)).await);
    findings
}

async fn services(
    doctor: &DoctorSettings,
    found: &Found,
    gateway: Option<&String>,
) -> Vec<Finding> {
    let address = |service| doctor.services.address(service, found, &doctor.place);
    let mut asked = vec![
        ("accounts", address(Service::Accounts)),
        ("orders", address(Service::Orders)),
    ];
    if let Some(gateway) = gateway {
        asked.push((
            "gateway",
            (gateway.clone(), found.told(&doctor.place.data_dir)),
        ));
    }
    let tls = doctor.place.tls();
    let findings = asked
        .into_iter()
        .map(async |(name, (base, advice))| health(name, &base, &advice, &tls).await);
    futures::future::join_all(findings)
        .await
        .into_iter()
        .flatten()
        .collect()
}

async fn health(name: &str, base: &str, advice: &str, tls: &TlsSettings) -> Vec<Finding> {
    let client = reqwest::Client::builder().timeout(LIMIT).no_proxy();
    let client = match trusting(client, tls).and_then(|client| Ok(client.build()?)) {
        Ok(client) => client,
        Err(error) => return vec![Finding::bad(name, error.to_string(), "try again")],
    };
    let answer = match client.get(format!("{base}/actuator/health")).send().await {
        Ok(answer) => answer.json::<Value>().await,
        Err(error) => Err(error),
    };
    let health = match answer {
        Ok(health) => health,
        Err(error)
            if error
                .source()
                .is_some_and(|cause| cause.is::<serde_json::Error>()) =>
        {
            return vec![Finding::bad(
                name,
                format!(
                    "what answers at {base} is no service of Tandem: another program has that port"
                ),
                advice,
            )];
        }
        Err(error) => {
            let reason = if error.is_timeout() {
                format!("no answer within {} s", LIMIT.as_secs())
            } else {
                innermost(&error)
            };
            return vec![Finding::bad(
                name,
                format!("{base} does not answer ({reason})"),
                advice,
            )];
        }
    };
    if let Some(other) = what_answers(&client, base).await
        && other != name
    {
        return vec![Finding::bad(
            name,
            format!("{base} is {other}, not {name}"),
            advice,
        )];
    }
    judge(name, base, advice, &health)
}

/// Turns the health report of a service into findings.
fn judge(name: &str, base: &str, advice: &str, health: &Value) -> Vec<Finding> {
    let mut ill = Vec::new();
    for (component, state) in health["components"].as_object().into_iter().flatten() {
        let status = state["status"].as_str().unwrap_or("unknown");
        if status == "UP" {
            continue;
        }
        let details = &state["details"];
        let reason = ["error", "reason", "failure"]
            .iter()
            .find_map(|key| details[*key].as_str())
            .unwrap_or("it says no reason");
        ill.push(Finding::bad(
            name,
            format!("its {component} is {status}: {reason}"),
            format!(
                "docs/production.md says what {component} needs; {base}/actuator/health tells more"
            ),
        ));
    }
    let mut findings = match health["status"].as_str() {
        _ if !ill.is_empty() => ill,
        Some("UP") => vec![Finding::good(name, format!("{base} is up"))],
        other => vec![Finding::bad(
            name,
            format!("{base} is {}", other.unwrap_or("something else")),
            advice,
        )],
    };
    findings.extend(dead_letters(name, health));
    findings
}

/// Dead letters, if a service reports any. They do not make the service unhealthy, but somebody has to handle them.
fn dead_letters(name: &str, health: &Value) -> Option<Finding> {
    let components = health["components"].as_object()?;
    let letters = components
        .values()
        .filter_map(|state| state["details"]["deadLetters"].as_u64())
        .fold(0, u64::saturating_add);
    let told = match letters {
        0 => return None,
        1 => "1 dead letter: a message that it could not take".to_owned(),
        more => format!(
            "{more} dead letters: messages that it could not take, and what came behind them of the same keys"
        ),
    };
    Some(Finding::doubtful(
        name,
        told,
        format!(
            "`tandem dead-letters list --service {name}` shows them with their reasons; `retry` takes them once more, `discard` removes them"
        ),
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;
    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
        net::TcpListener,
    };

    use super::*;
    use crate::doctor::Verdict;

    #[tokio::test]
    async fn a_port_that_another_program_has_is_told_as_that() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let another = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                assert_ne!(stream.read_line(&mut line).await.unwrap(), 0);
            }
            let page = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>";
            stream.write_all(page).await.unwrap();
        };
        let tls = TlsSettings::default();
        let asked = health("accounts", &base, "see --accounts-url", &tls);
        let (findings, ()) = tokio::join!(asked, another);
        let told = findings[0].to_string();
        assert_eq!(findings[0].verdict, Verdict::Bad, "{told}");
        assert!(
            told.contains("another program has that port") && told.contains("--accounts-url"),
            "{told}"
        );
    }

    fn judged(status: &str, letters: &Value) -> Vec<Finding> {
        let health = json!({
            "status": status,
            "components": {
                "store": {"status": "UP"},
                "replica": {"status": "UP", "details": {"lag": 0, "deadLetters": letters}},
                "audit": {"status": "UP", "details": {"deadLetters": letters}},
            },
        });
        judge("orders", "http://127.0.0.1:8085", "see its log", &health)
    }

    #[test]
    fn dead_letters_are_told_with_the_command_that_shows_them() {
        let findings = judged("UP", &json!(2));
        let verdicts: Vec<Verdict> = findings.iter().map(|finding| finding.verdict).collect();
        assert_eq!(verdicts, [Verdict::Good, Verdict::Doubtful]);
        let told = findings.last().map(ToString::to_string).unwrap_or_default();
        assert!(
            told.contains("4 dead letters")
                && told.contains("tandem dead-letters list --service orders"),
            "{told}"
        );
        // An unhealthy service reports its dead letters too.
        assert_eq!(judged("DOWN", &json!(1)).len(), 2);
    }

    #[test]
    fn without_dead_letters_and_where_nothing_tells_of_any_nothing_is_said() {
        for letters in [json!(0), Value::Null] {
            let findings = judged("UP", &letters);
            assert_eq!(findings.len(), 1, "{findings:?}");
            assert_eq!(findings[0].verdict, Verdict::Good);
        }
    }
}
