//! Subjects qualified by their issuer. Each issuer names its own subjects, and the services record and count callers by one name, so subjects of
//! different issuers must never be equal.

use std::sync::Arc;

/// The longest subject, in characters, with its issuer where it has one: it is recorded with every change.
pub(crate) const MAX_SUBJECT: usize = 200;
/// What stands between a further issuer and its subject. No customer's id has it, so only subjects of the first issuer are customers.
const SEPARATOR: char = '|';
/// What the services record of callers without a token. It is not to be claimed by one.
const RESERVED: [&str; 2] = ["anonymous", "legacy-rest"];

/// Why a subject is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSubject {
    /// It is empty, too long, or not printable.
    Unfit,
    /// It is the name of somebody else.
    Reserved,
}

/// The subject of a token from the issuer at this place of the configured ones, as everything behind the verifier has it: as it is from the
/// first of them, `ISSUER|SUBJECT` from a further one.
///
/// # Errors
///
/// [`NoSubject`] where it is none, or one that belongs to another issuer or to nobody.
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

/// Whose a name is: of the further issuers that it begins with that of the longest name, else of the first. So each name has one owner,
/// also where one issuer's name begins with another's.
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
        // The first issuer's own name means nothing in a subject.
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
