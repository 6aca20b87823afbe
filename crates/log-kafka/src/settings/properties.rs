//! Combines the user's settings into librdkafka properties, including the login, wherever it is given.

use secrecy::{ExposeSecret, SecretString};
use tandem_event_path::log::LogError;

use super::KafkaSettings;
use crate::jaas::{JaasError, Login};

/// Which Kafka setting is invalid. It never quotes a value, because that may be a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KafkaSettingsError {
    /// A property does not have the form `KEY=VALUE`.
    #[error(
        "--kafka-property (TANDEM_KAFKA_PROPERTIES): number {0} is no KEY=VALUE; write for example security.protocol=SASL_SSL, in the environment one a line"
    )]
    NoPair(usize),
    /// The login of a Java client cannot be read.
    #[error(transparent)]
    Jaas(#[from] JaasError),
    /// The protocol requires a login, but there is none.
    #[error(
        "security.protocol is {protocol}, and there is no {missing}: set the properties sasl.username and sasl.password, or TANDEM_KAFKA_SASL_USERNAME and TANDEM_KAFKA_SASL_PASSWORD, or TANDEM_KAFKA_SASL_JAAS_CONFIG"
    )]
    NoLogin {
        /// The protocol that requires a login.
        protocol: String,
        /// `user` or `password`.
        missing: &'static str,
    },
}

const USERNAME: &str = "sasl.username";
const PASSWORD: &str = "sasl.password";
const JAAS_CONFIG: &str = "sasl.jaas.config";
const MECHANISM: &str = "sasl.mechanism";

/// The value without surrounding white space; `None` if it is empty.
fn given(secret: Option<&SecretString>) -> Option<String> {
    let value = secret?.expose_secret().trim();
    (!value.is_empty()).then(|| value.to_owned())
}

impl From<KafkaSettingsError> for LogError {
    fn from(error: KafkaSettingsError) -> Self {
        Self::Settings(error.to_string())
    }
}

/// Properties as keys and values.
///
/// # Errors
/// Says which property does not have the form `KEY=VALUE`, without quoting it.
pub fn pairs(properties: &[String]) -> Result<Vec<(String, String)>, KafkaSettingsError> {
    let mut pairs = Vec::new();
    for (number, text) in (1..).zip(properties) {
        // A value from a file often ends with a line break.
        if text.trim().is_empty() {
            continue;
        }
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                pairs.push((key.trim().to_owned(), value.trim().to_owned()));
            }
            _ => return Err(KafkaSettingsError::NoPair(number)),
        }
    }
    Ok(pairs)
}

impl KafkaSettings {
    /// Validates everything that can be checked without Kafka. Call it before the first client is created, because a
    /// client ignores invalid settings.
    ///
    /// # Errors
    /// Says which setting is invalid, and what would be right.
    pub fn check(&self) -> Result<(), KafkaSettingsError> {
        let properties = self.resolve()?;
        let value = |key: &str| {
            let found = properties.iter().rev().find(|(name, _)| name == key);
            found
                .map(|(_, value)| value.as_str())
                .filter(|value| !value.is_empty())
        };
        let protocol = value("security.protocol").unwrap_or_default();
        // Other mechanisms log in without a password.
        let by_password = value(MECHANISM)
            .or(value("sasl.mechanisms"))
            .is_some_and(|mechanism| mechanism == "PLAIN" || mechanism.starts_with("SCRAM-"));
        if protocol.to_ascii_uppercase().starts_with("SASL") && by_password {
            for (key, missing) in [(USERNAME, "user"), (PASSWORD, "password")] {
                if value(key).is_none() {
                    return Err(KafkaSettingsError::NoLogin {
                        protocol: protocol.to_owned(),
                        missing,
                    });
                }
            }
        }
        Ok(())
    }

    /// The user's properties and the login, in order of precedence: later ones override earlier ones.
    fn resolve(&self) -> Result<Vec<(String, String)>, KafkaSettingsError> {
        let mut pairs = pairs(&self.properties)?;
        let jaas = pairs
            .iter()
            .rev()
            .find(|(key, _)| key == JAAS_CONFIG)
            .map(|(_, value)| value.clone())
            .filter(|value| !value.is_empty())
            .or_else(|| given(self.sasl.jaas_config.as_ref()));
        pairs.retain(|(key, _)| key != JAAS_CONFIG);
        let mut properties = Vec::new();
        if let Some(jaas) = jaas {
            let login = Login::read(&jaas)?;
            let set = pairs
                .iter()
                .rev()
                .find(|(key, _)| key == MECHANISM || key == "sasl.mechanisms");
            let mechanism = login.mechanism(set.map(|(_, value)| value.as_str()))?;
            if set.is_none() {
                properties.push((MECHANISM.to_owned(), mechanism));
            }
            properties.push((USERNAME.to_owned(), login.username));
            properties.push((PASSWORD.to_owned(), login.password));
        }
        let separate = [
            (USERNAME, &self.sasl.username),
            (PASSWORD, &self.sasl.password),
        ];
        for (key, secret) in separate {
            if let Some(value) = given(secret.as_ref()) {
                properties.push((key.to_owned(), value));
            }
        }
        properties.extend(pairs);
        Ok(properties)
    }

    /// The effective properties; none if [`Self::check`] fails.
    pub(crate) fn effective_properties(&self) -> Vec<(String, String)> {
        self.resolve().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::settings::tests::with_properties;

    const JAAS: &str = "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"KEY\" password=\"S3CRET\";\n";

    fn login(settings: &KafkaSettings) -> [Option<String>; 3] {
        assert_eq!(settings.check(), Ok(()));
        let config = settings.client_config();
        [MECHANISM, USERNAME, PASSWORD].map(|key| config.get(key).map(str::to_owned))
    }

    #[test]
    fn a_secret_of_a_java_client_logs_in() {
        let wanted = ["PLAIN", "KEY", "S3CRET"].map(|value| Some(value.to_owned()));
        let by_property = with_properties(&[
            "security.protocol=SASL_SSL".to_owned(),
            format!("sasl.jaas.config={JAAS}"),
        ]);
        assert_eq!(login(&by_property), wanted);
        assert_eq!(by_property.client_config().get(JAAS_CONFIG), None);
        let mut by_environment = with_properties(&["sasl.mechanism=PLAIN"]);
        by_environment.sasl.jaas_config = Some(JAAS.into());
        assert_eq!(login(&by_environment), wanted);
    }

    #[test]
    fn line_ends_around_a_value_are_no_part_of_it() {
        let mut settings = with_properties(&[
            "security.protocol=SASL_SSL",
            "",
            "sasl.mechanism=SCRAM-SHA-512 ",
            " ",
        ]);
        settings.brokers = " a:9092, b:9092\n".to_owned();
        settings.sasl.username = Some("KEY\n".into());
        settings.sasl.password = Some("S3CRET\r\n".into());
        settings.sasl.jaas_config = Some("\n".into());
        let wanted = ["SCRAM-SHA-512", "KEY", "S3CRET"].map(|value| Some(value.to_owned()));
        assert_eq!(login(&settings), wanted);
        let config = settings.client_config();
        assert_eq!(config.get("bootstrap.servers"), Some("a:9092,b:9092"));
    }

    #[test]
    fn what_does_not_fit_is_said_without_the_value() {
        let told = |properties: &[&str]| {
            let error = with_properties(properties).check().unwrap_err().to_string();
            assert!(!error.contains("S3CRET"), "{error}");
            error
        };
        assert!(told(&["acks=all", "S3CRET"]).contains("number 2 is no KEY=VALUE"));
        let sasl = ["security.protocol=SASL_SSL", "sasl.mechanism=PLAIN"];
        assert!(told(&sasl).contains("there is no user"));
        assert!(
            told(&[sasl[0], sasl[1], "sasl.username=KEY"]).contains("there is no password: set")
        );
        let jaas = "sasl.jaas.config=ScramLoginModule required username=KEY password=S3CRET;";
        assert!(told(&[sasl[1], jaas]).contains("SCRAM-SHA-256 or SCRAM-SHA-512"));
    }

    #[test]
    fn a_property_wins_over_the_login_beside_it() {
        let mut settings = with_properties(&["sasl.username=explicit"]);
        settings.sasl.jaas_config = Some(JAAS.into());
        assert_eq!(login(&settings)[1].as_deref(), Some("explicit"));
    }
}
