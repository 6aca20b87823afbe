//! Masks card numbers in what operators see. At most the last four digits stay.

use std::borrow::Cow;

use serde_json::Value;

/// Fewest and most digits of a card number (ISO/IEC 7812). In fields about cards the minimum is the one that accounts
/// accepts.
const FEWEST_OF_A_CARD: usize = 12;
const FEWEST: usize = 13;
const MOST: usize = 19;
/// Fields that are not masked, so that people can search for them. An id of sixteen digits may pass the checksum by
/// chance.
const IDS: [&str; 2] = ["id", "customerId"];
/// How many digits of a number stay visible.
const SHOWN: usize = 4;

/// Masks card numbers in a value, at any depth, except for their last four digits.
pub fn mask_cards(value: &mut Value) {
    mask_below(value, false);
}

/// Masks card numbers in a value at this path, such as `creditCards[0].number`.
pub fn mask_cards_at(path: &str, value: &mut Value) {
    let of_a_card = path.to_ascii_lowercase().contains("card");
    let name = path.rsplit('.').next().unwrap_or(path);
    if of_a_card || !IDS.contains(&name) {
        mask_below(value, of_a_card);
    }
}

fn mask_below(value: &mut Value, of_a_card: bool) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if !of_a_card && IDS.contains(&name.as_str()) {
                    continue;
                }
                let name = name.to_ascii_lowercase();
                mask_below(member, of_a_card || name.contains("card"));
            }
        }
        Value::Array(elements) => {
            for element in elements {
                mask_below(element, of_a_card);
            }
        }
        Value::String(text) => {
            if let Cow::Owned(masked) = masked(text, of_a_card) {
                *text = masked;
            }
        }
        Value::Number(number) => {
            if let Cow::Owned(masked) = masked(&number.to_string(), of_a_card) {
                *value = masked.into();
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

/// The text with its card numbers masked, if they have a valid check digit. The key of the record that the text is
/// about is never masked.
#[must_use]
pub fn without_cards(text: &str, key: Option<&str>) -> String {
    match key.filter(|key| !key.is_empty()) {
        None => masked(text, false).into_owned(),
        Some(key) => {
            let parts: Vec<_> = text.split(key).map(|part| masked(part, false)).collect();
            parts.join(key)
        }
    }
}

/// Masks card numbers in a text. In a field about cards every long number is masked, elsewhere only those with a valid
/// check digit (ISO/IEC 7812-1, annex B).
fn masked(text: &str, of_a_card: bool) -> Cow<'_, str> {
    let letters: Vec<char> = text.chars().collect();
    let mut hidden = vec![false; letters.len()];
    let mut start = 0;
    while start < letters.len() {
        if !letters[start].is_ascii_digit() {
            start += 1;
            continue;
        }
        let end = end_of_number(&letters, start);
        let digits: Vec<usize> = (start..end)
            .filter(|place| letters[*place].is_ascii_digit())
            .collect();
        let stands_alone = !start
            .checked_sub(1)
            .is_some_and(|before| letters[before].is_alphanumeric() || letters[before] == '+')
            && !letters.get(end).is_some_and(|next| next.is_alphanumeric());
        let is_number = if of_a_card {
            digits.len() >= FEWEST_OF_A_CARD
        } else {
            (FEWEST..=MOST).contains(&digits.len())
                && stands_alone
                && has_check_digit(digits.iter().map(|place| letters[*place]))
        };
        if is_number {
            for place in &digits[..digits.len() - SHOWN] {
                hidden[*place] = true;
            }
        }
        start = end;
    }
    if !hidden.contains(&true) {
        return Cow::Borrowed(text);
    }
    let shown = letters.iter().zip(&hidden);
    Cow::Owned(
        shown
            .map(|(letter, is_hidden)| if *is_hidden { '*' } else { *letter })
            .collect(),
    )
}

/// The end of the number that begins here: digits, possibly with single spaces, dashes or dots between them.
fn end_of_number(letters: &[char], start: usize) -> usize {
    let is_digit = |place: usize| letters.get(place).is_some_and(char::is_ascii_digit);
    let mut end = start;
    loop {
        if is_digit(end) || matches!(letters.get(end), Some(' ' | '-' | '.')) && is_digit(end + 1) {
            end += 1;
        } else {
            return end;
        }
    }
}

/// The Luhn checksum.
fn has_check_digit(digits: impl DoubleEndedIterator<Item = char>) -> bool {
    let sum: u32 = digits
        .rev()
        .filter_map(|digit| digit.to_digit(10))
        .enumerate()
        .map(|(place, digit)| match (place % 2, digit * 2) {
            (0, _) => digit,
            (_, doubled) if doubled > 9 => doubled - 9,
            (_, doubled) => doubled,
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_of_cards_are_masked_wherever_they_are() {
        let mut body = json!({
            "creditCards": [{"number": "1234-6789-0000-0000", "last4": "0000", "expiration": "12/2030", "deep": {"n": 123_456_789_012_u64}}],
            "reason": "my card is 4111 1111 1111 1111, please",
            "id": "4111111111111111",
            "phone": "+44 20 7946 0001",
            "uuid": "550e8400-e29b-41d4-a716-446655440000",
            "at": "2026-11-29T17:30:01.123Z",
            "total": "19.90",
        });
        mask_cards(&mut body);
        let card = &body["creditCards"][0];
        assert_eq!(card["number"], "****-****-****-0000");
        assert_eq!(card["deep"]["n"], "********9012");
        assert_eq!(
            (&card["last4"], &card["expiration"]),
            (&json!("0000"), &json!("12/2030"))
        );
        assert_eq!(body["reason"], "my card is **** **** **** 1111, please");
        for name in ["id", "phone", "uuid", "at", "total"] {
            assert!(!body[name].as_str().unwrap().contains('*'), "{body}");
        }
    }

    #[test]
    fn what_stands_at_a_path_is_masked_as_it_is_in_its_place() {
        for (path, value, shown) in [
            (
                "creditCards[0].number",
                "1234-6789-0000-0000",
                "****-****-****-0000",
            ),
            ("name.suffix", "4111 1111 1111 1111", "**** **** **** 1111"),
            ("creditCards[0].id", "4111111111111111", "************1111"),
            ("id", "4111111111111111", "4111111111111111"),
            (
                "items[0].customerId",
                "4111111111111111",
                "4111111111111111",
            ),
        ] {
            let mut value = json!(value);
            mask_cards_at(path, &mut value);
            assert_eq!(value, shown, "{path}");
        }
        let mut card = json!({"number": 4_111_111_111_111_111_u64});
        mask_cards_at("creditCards[1]", &mut card);
        assert_eq!(card, json!({"number": "************1111"}));
    }

    #[test]
    fn the_key_of_a_record_is_not_taken_for_a_card() {
        let reason = "the key of \"4111111111111111\" is missing; 5500000000000004";
        assert_eq!(
            without_cards(reason, Some("4111111111111111")),
            "the key of \"4111111111111111\" is missing; ************0004"
        );
        assert!(!without_cards(reason, None).contains("41111"));
    }
}
