//! Reads `sasl.jaas.config`, the login of a Java client, as found in Secrets that were made for one. It extracts user
//! and password.
//!
//! Form: `MODULE FLAG KEY="VALUE" …;` (javax.security.auth.login.Configuration; values quoted as in Java).

/// The content of a login.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) module: Module,
    pub(super) username: String,
    pub(super) password: String,
}

/// The supported login modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Module {
    Plain,
    Scram,
}

/// Why a `sasl.jaas.config` cannot be used. It never quotes the text, because that may contain a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JaasError {
    /// It names a module that is not supported.
    #[error(
        "sasl.jaas.config names the login module {0}; PlainLoginModule and ScramLoginModule are understood, for others set librdkafka's own properties"
    )]
    Module(String),
    /// Its syntax is wrong.
    #[error(
        "sasl.jaas.config has {0}; it should look like org.apache.kafka.common.security.plain.PlainLoginModule required username=\"USER\" password=\"PASSWORD\";"
    )]
    Form(&'static str),
    /// The module and the mechanism do not match.
    #[error(
        "sasl.jaas.config has a {module} and sasl.mechanism is {mechanism}; set sasl.mechanism to {wanted}"
    )]
    Mechanism {
        /// The module's name.
        module: &'static str,
        /// The value of `sasl.mechanism`.
        mechanism: String,
        /// What would be right.
        wanted: &'static str,
    },
}

impl Login {
    /// Reads a login.
    ///
    /// # Errors
    /// If its syntax is wrong, or it names another module.
    pub(super) fn read(text: &str) -> Result<Self, JaasError> {
        let mut words = words(text)?.into_iter();
        let module = words.next().ok_or(JaasError::Form("nothing in it"))?;
        let module = match module.rsplit('.').next() {
            Some("PlainLoginModule") => Module::Plain,
            Some("ScramLoginModule") => Module::Scram,
            _ if module.contains('=') => return Err(JaasError::Form("no login module")),
            _ => return Err(JaasError::Module(module.chars().take(100).collect())),
        };
        let (mut username, mut password) = (None, None);
        for word in words {
            match word.split_once('=') {
                Some(("username", value)) => username = Some(value.to_owned()),
                Some(("password", value)) => password = Some(value.to_owned()),
                // The flag (`required`), and options that are not about the user's identity.
                _ => {}
            }
        }
        Ok(Self {
            module,
            username: username
                .filter(|user| !user.is_empty())
                .ok_or(JaasError::Form("no username"))?,
            password: password
                .filter(|password| !password.is_empty())
                .ok_or(JaasError::Form("no password"))?,
        })
    }

    /// The mechanism for this module, given the one in the settings.
    ///
    /// # Errors
    /// If they do not match.
    pub(super) fn mechanism(&self, set: Option<&str>) -> Result<String, JaasError> {
        let (module, wanted) = match self.module {
            Module::Plain => ("PlainLoginModule", "PLAIN"),
            Module::Scram => ("ScramLoginModule", "SCRAM-SHA-256 or SCRAM-SHA-512"),
        };
        match (self.module, set) {
            (Module::Plain, None) => Ok("PLAIN".to_owned()),
            (Module::Plain, Some(mechanism)) if mechanism == "PLAIN" => Ok(mechanism.to_owned()),
            (Module::Scram, Some(mechanism)) if mechanism.starts_with("SCRAM-") => {
                Ok(mechanism.to_owned())
            }
            (_, mechanism) => Err(JaasError::Mechanism {
                module,
                mechanism: mechanism.unwrap_or("not set").to_owned(),
                wanted,
            }),
        }
    }
}

/// Splits at white space outside of quotes, up to the semicolon. Resolves quotes and escapes.
fn words(text: &str) -> Result<Vec<String>, JaasError> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', Some(_)) => match letters.next() {
                Some('n') => word.push('\n'),
                Some('t') => word.push('\t'),
                Some(escaped) => word.push(escaped),
                None => return Err(JaasError::Form("a quote that does not end")),
            },
            ('"' | '\'', None) => quote = Some(letter),
            (_, Some(open)) if letter == open => quote = None,
            (_, Some(_)) => word.push(letter),
            (';', None) => break,
            (_, None) if letter.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (_, None) => word.push(letter),
        }
    }
    if quote.is_some() {
        return Err(JaasError::Form("a quote that does not end"));
    }
    if !word.is_empty() {
        words.push(word);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PLAIN: &str = "org.apache.kafka.common.security.plain.PlainLoginModule";

    fn login(text: &str) -> (String, String) {
        let login = Login::read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        (login.username, login.password)
    }

    fn error(text: &str) -> String {
        match Login::read(text) {
            Ok(login) => panic!("{text}: taken for {}", login.username),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_login_is_read_however_it_is_quoted() {
        let wanted = ("KEY".to_owned(), "se;cr=et \"x\"".to_owned());
        for rest in [
            r#"required username="KEY" password="se;cr=et \"x\"";"#,
            "required\n  username='KEY'\n  password='se;cr=et \"x\"' ;\n",
            r#"required serviceName="kafka" password="se;cr=et \"x\"" username=KEY"#,
        ] {
            assert_eq!(login(&format!("{PLAIN} {rest}")), wanted);
        }
        let path = login(&format!(
            r#"{PLAIN} required username="a" password="C:\\x";"#
        ));
        assert_eq!(path.1, r"C:\x");
    }

    #[test]
    fn what_does_not_fit_is_said_without_the_password() {
        for (text, said) in [
            ("", "nothing in it"),
            ("username=\"KEY\" password=\"hidden\";", "no login module"),
            (
                "com.example.Other required password=\"hidden\";",
                "com.example.Other; PlainLoginModule and ScramLoginModule",
            ),
            (
                &format!("{PLAIN} required password=\"hidden\";"),
                "no username",
            ),
            (
                &format!("{PLAIN} required username=\"KEY\";"),
                "no password",
            ),
            (
                &format!("{PLAIN} required username=\"KEY\" password=\"hidden;"),
                "a quote that does not end",
            ),
        ] {
            let error = error(text);
            assert!(error.contains(said), "{text}: {error}");
            assert!(!error.contains("hidden"), "{error}");
        }
    }

    #[test]
    fn module_and_mechanism_belong_together() {
        let of = |module: &str| {
            Login::read(&format!("{module} required username=\"a\" password=\"b\";")).unwrap()
        };
        let plain = of(PLAIN);
        assert_eq!(plain.mechanism(None).unwrap(), "PLAIN");
        assert_eq!(plain.mechanism(Some("PLAIN")).unwrap(), "PLAIN");
        let wrong = plain.mechanism(Some("SCRAM-SHA-512")).unwrap_err();
        assert!(wrong.to_string().ends_with("set sasl.mechanism to PLAIN"));
        let scram = of("org.apache.kafka.common.security.scram.ScramLoginModule");
        let mechanism = scram.mechanism(Some("SCRAM-SHA-256")).unwrap();
        assert_eq!(mechanism, "SCRAM-SHA-256");
        let wrong = scram.mechanism(None).unwrap_err().to_string();
        assert!(wrong.ends_with("SCRAM-SHA-256 or SCRAM-SHA-512"), "{wrong}");
    }
}
