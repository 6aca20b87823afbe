//! Subjects qualified by their issuer.
//!
//! Each issuer chooses its own subjects, and the services record and count callers by a single name. So subjects of
//! different issuers must never be equal.

use std::sync::Arc;

/// The longest subject, in characters, including its issuer if it has one. It is recorded with every change.
pub(crate) const MAX_SUBJECT: usize = 200;
/// Separates a further issuer from its subject. No customer's id contains it, so only subjects of the first issuer can
/// be customers.
const SEPARATOR: char = '|';
/// The names that the services record for callers without a token. No token may claim them.
const RESERVED: [&str; 2] = ["anonymous", "legacy-rest"];

/// Why a subject is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSubject {
    /// It is empty, too long, or not printable.
    Unfit,
    /// It is reserved for another caller.
    Reserved,
}

/// The name of a token's subject after verification. `issuer` is the index of the token's issuer among the
/// configured ones. A subject of the first issuer stays as it is. One of a further issuer becomes `ISSUER|SUBJECT`.
///
/// # Errors
///
/// [`NoSubject`] if it is not a valid subject, or is reserved for another issuer or for callers without a token.
pub(crate) fn named<'a>(
    subject: &str,
    issuer: usize,
    issuers: impl Iterator<Item = &'a str> + Clone,
) -> Result<Arc<str>, NoSubject> {
    if subject.is_empty() {
        return Err(NoSubject::Unfit);
    }
    let further = issuers.clone().nth(issuer).filter(|_| issuer > 0);
    let name = match further {
        Some(further) => format!("{further}{SEPARATOR}{subject}"),
        None => subject.to_owned(),
    };
    if name.chars().count() > MAX_SUBJECT || name.chars().any(char::is_control) {
        return Err(NoSubject::Unfit);
    }
    if RESERVED.contains(&name.as_str()) || owner(&name, issuers) != issuer {
        return Err(NoSubject::Reserved);
    }
    Ok(name.into())
}

/// The issuer that owns a name. It is the further issuer with the longest name that the name begins with, otherwise the
/// first issuer. So each name has one owner, even if one issuer's name begins with another's.
fn owner<'a>(name: &str, issuers: impl Iterator<Item = &'a str>) -> usize {
    issuers
        .enumerate()
        .skip(1)
        .filter(|(_, issuer)| {
            name.strip_prefix(*issuer)
                .is_some_and(|rest| rest.starts_with(SEPARATOR))
        })
        .max_by_key(|(_, issuer)| issuer.len())
        .map_or(0, |(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUERS: [&str; 3] = ["https://a", "https://b", "https://b|c"];

    fn of(issuer: usize, subject: &str) -> Result<Arc<str>, NoSubject> {
        named(subject, issuer, ISSUERS.into_iter())
    }

    #[test]
    fn the_first_issuer_has_its_subjects_as_they_are_and_a_further_one_with_its_name() {
        assert_eq!(of(0, "7"), Ok("7".into()));
        assert_eq!(of(0, "auth0|7"), Ok("auth0|7".into()));
        assert_eq!(of(1, "7"), Ok("https://b|7".into()));
        assert_eq!(of(2, "7"), Ok("https://b|c|7".into()));
    }

    #[test]
    fn no_issuer_can_name_a_subject_of_another() {
        assert_eq!(of(0, "https://b|7"), Err(NoSubject::Reserved));
        assert_eq!(of(0, "https://b|c|7"), Err(NoSubject::Reserved));
        assert_eq!(of(1, "c|7"), Err(NoSubject::Reserved));
        // The first issuer's own name has no meaning in a subject.
        assert_eq!(of(0, "https://a|7"), Ok("https://a|7".into()));
    }

    #[test]
    fn the_names_of_callers_without_a_token_are_nobodys() {
        for reserved in RESERVED {
            assert_eq!(of(0, reserved), Err(NoSubject::Reserved));
            assert_eq!(of(1, reserved), Ok(format!("https://b|{reserved}").into()));
        }
    }

    #[test]
    fn a_subject_is_printable_and_bounded_with_its_issuer() {
        let longest = "x".repeat(MAX_SUBJECT);
        assert!(of(0, &longest).is_ok());
        assert_eq!(of(0, &format!("{longest}x")), Err(NoSubject::Unfit));
        assert_eq!(of(1, &longest), Err(NoSubject::Unfit));
        for unfit in ["", "a\nb"] {
            assert_eq!(of(0, unfit), Err(NoSubject::Unfit));
            assert_eq!(of(1, unfit), Err(NoSubject::Unfit));
        }
    }
}
