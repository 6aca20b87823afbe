//! The contact data of a customer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::violation::{Path, Problem, Violation};

/// The maximum number of characters of an e-mail address (RFC 5321).
pub(crate) const MAX_EMAIL: usize = 254;

/// The maximum number of characters of a phone number.
pub(crate) const MAX_PHONE: usize = 50;

/// Phone numbers and e-mail address. Texts are kept as they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Contact {
    /// Required.
    pub primary_phone: String,
    /// Another number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secondary_phone: Option<String>,
    /// Required.
    pub email: String,
}

/// Whether the form of an e-mail address is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmailForm {
    /// There must be one `@`, a name before it and a domain with a dot after it.
    Checked,
    /// Any text is accepted, because the documented REST sample has an e-mail address without an `@`.
    Any,
}

impl Contact {
    pub(crate) fn check(&self, form: EmailForm) -> Result<(), Violation> {
        let path = Path::part("contact");
        path.required("primaryPhone", &self.primary_phone)?;
        check_phone(&path, "primaryPhone", &self.primary_phone)?;
        if let Some(phone) = &self.secondary_phone {
            if phone.trim().is_empty() {
                path.bounded("secondaryPhone", phone, MAX_PHONE)?;
            } else {
                check_phone(&path, "secondaryPhone", phone)?;
            }
        }
        if self.email.trim().is_empty() {
            return Err(path.refuse("email", Problem::Empty { max: MAX_EMAIL }));
        }
        path.bounded("email", &self.email, MAX_EMAIL)?;
        if form == EmailForm::Checked && !is_email(&self.email) {
            return Err(path.refuse("email", Problem::Email));
        }
        Ok(())
    }
}

fn check_phone(path: &Path, name: &str, phone: &str) -> Result<(), Violation> {
    path.bounded(name, phone, MAX_PHONE)?;
    let fits = phone.chars().any(|c| c.is_ascii_digit())
        && phone
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || " +-./()#*,".contains(c));
    if fits {
        Ok(())
    } else {
        Err(path.refuse(name, Problem::Phone))
    }
}

/// Checks the form only. Only a message to the mailbox can show whether the mailbox exists.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else {
        return false;
    };
    !local.is_empty()
        && !text.chars().any(char::is_whitespace)
        && !domain.contains('@')
        && domain.contains('.')
        && domain.split('.').all(|label| !label.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(phone: &str, email: &str) -> Contact {
        Contact {
            primary_phone: phone.to_owned(),
            secondary_phone: None,
            email: email.to_owned(),
        }
    }

    #[test]
    fn usual_phone_numbers_and_addresses_are_taken() {
        for phone in [
            "201-123-4567",
            "+49 (0)30 901820",
            "1-800-FLOWERS",
            "555.0100 x12",
        ] {
            assert_eq!(
                contact(phone, "jo@example.com").check(EmailForm::Checked),
                Ok(())
            );
        }
        for email in [
            "jo@example.com",
            "jo+a.b@mail.example.co.uk",
            "ü@exämple.de",
        ] {
            assert_eq!(contact("1", email).check(EmailForm::Checked), Ok(()));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_only_where_the_form_is_checked() {
        for email in [
            "[email protected]",
            "jo",
            "@example.com",
            "jo@",
            "jo@example",
            "a@b@c.de",
            "jo@.de",
            "j o@example.com",
        ] {
            let refused = contact("1", email).check(EmailForm::Checked);
            assert!(
                matches!(&refused, Err(Violation { field, problem: Problem::Email }) if field == "contact.email"),
                "{email}: {refused:?}"
            );
            assert_eq!(contact("1", email).check(EmailForm::Any), Ok(()));
        }
    }

    #[test]
    fn what_is_no_phone_number_is_refused() {
        for phone in ["none", "12;34", "+", "٣٤"] {
            let refused = contact(phone, "jo@example.com").check(EmailForm::Any);
            assert!(
                matches!(
                    &refused,
                    Err(Violation {
                        problem: Problem::Phone,
                        ..
                    })
                ),
                "{phone}: {refused:?}"
            );
        }
    }
}
