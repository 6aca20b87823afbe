//! The services of a running system, asked for their health.

use std::time::Duration;

use serde_json::Value;
use tandem_front_door::TlsSettings;

use super::{DoctorSettings, Finding};
use crate::{
    operator::{Service, innermost},
    running::Found,
    tls_client::trusting,
};

/// For one service to tell its health: its own checks take up to 2 s.
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
    let mut ill = Vec::new();
    for (component, state) in health["components"].as_object().into_iter().flatten() {
        let status = state["status"].as_str().unwrap_or("unknown");
        if status == "UP" {
            continue;
        }
        let details = &state["details"];
        let reason = ["error", "reason", "trouble"]
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
    match health["status"].as_str() {
        _ if !ill.is_empty() => ill,
        Some("UP") => vec![Finding::good(name, format!("{base} is up"))],
        other => vec![Finding::bad(
            name,
            format!("{base} is {}", other.unwrap_or("something else")),
            advice,
        )],
    }
}
