//! Which characters may occur in a text that people write and read: only visible ones. Invisible characters, and
//! characters that change the direction of the text beside them, make different texts look alike and make a text look
//! empty that is not.

/// The characters that a text must not contain, each with its position, counted in characters from 0. They are control
/// characters, line and paragraph separators, and invisible characters: most of Unicode's category Cf, and letters and
/// marks of other categories that are drawn as nothing.
///
/// Joiners and variation selectors are allowed behind a character that they change. Persian writes words with U+200C.
/// Malayalam and emoji use U+200D. No script uses a joiner behind an ASCII letter.
pub fn unprintable(text: &str) -> impl Iterator<Item = (usize, char)> {
    let before = std::iter::once(' ').chain(text.chars());
    text.chars()
        .zip(before)
        .enumerate()
        .filter(|(_, (character, before))| !is_printable(*character, *before))
        .map(|(at, (character, _))| (at, character))
}

fn is_printable(character: char, before: char) -> bool {
    let is_behind_one = !before.is_whitespace() && !is_joiner(before);
    match character {
        _ if is_joiner(character) => is_behind_one && !before.is_ascii(),
        // Variation selectors, and the combining grapheme joiner.
        '\u{034F}'
        | '\u{180B}'..='\u{180D}'
        | '\u{180F}'
        | '\u{FE00}'..='\u{FE0F}'
        | '\u{E0100}'..='\u{E01EF}' => is_behind_one,
        other => !other.is_control() && !is_hidden(other),
    }
}

fn is_joiner(character: char) -> bool {
    matches!(character, '\u{200C}' | '\u{200D}')
}

/// Whether a character is drawn as nothing. Some characters of category Cf are drawn, such as U+0600, the Arabic number
/// sign. They are not hidden.
fn is_hidden(character: char) -> bool {
    matches!(
        character,
        // The soft hyphen.
        '\u{00AD}'
        // Marks that set the direction of the text beside them.
        | '\u{061C}' | '\u{200E}' | '\u{200F}'
        // Line and paragraph separators, and characters that embed or override a direction.
        | '\u{2028}'..='\u{202E}'
        // Hangul fillers, and Khmer inherent vowels.
        | '\u{115F}' | '\u{1160}' | '\u{3164}' | '\u{FFA0}' | '\u{17B4}' | '\u{17B5}'
        // Spaces without width, invisible operators, and characters that isolate a direction.
        | '\u{180E}' | '\u{200B}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}'
        // Control characters of annotations, shorthand and music, and tags.
        | '\u{FFF9}'..='\u{FFFB}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}'
        | '\u{E0000}'..='\u{E007F}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_invisible_or_turns_a_direction_is_found_with_its_place() {
        for (text, at, character) in [
            ("\u{200B}", 0, '\u{200B}'),
            ("Jo\u{202E}hn", 2, '\u{202E}'),
            ("é\u{2028}", 1, '\u{2028}'),
            ("a\u{2066}b", 1, '\u{2066}'),
            ("\u{FEFF}a", 0, '\u{FEFF}'),
            ("\u{3164}", 0, '\u{3164}'),
            ("co\u{AD}op", 2, '\u{AD}'),
            ("a\u{E0041}", 1, '\u{E0041}'),
            ("a\nb", 1, '\n'),
            ("a\u{85}", 1, '\u{85}'),
            // Joiners and selectors that have no character to change.
            ("\u{200D}", 0, '\u{200D}'),
            ("Jo\u{200C}", 2, '\u{200C}'),
            ("é \u{200D}", 2, '\u{200D}'),
            ("می\u{200C}\u{200C}", 3, '\u{200C}'),
            ("\u{FE0F}", 0, '\u{FE0F}'),
        ] {
            assert_eq!(unprintable(text).next(), Some((at, character)), "{text:?}");
        }
    }

    #[test]
    fn what_people_are_called_and_what_they_draw_is_taken() {
        for text in [
            "",
            "Zoë O’Brien-Łukasz",
            "علی\u{200C}رضا",
            "അവന്\u{200D}",
            "👩\u{200D}👩\u{200D}👧",
            "❤\u{FE0F}\u{200D}🔥",
            "1\u{FE0F}\u{20E3}",
            "葛\u{E0100}",
            "אֶסְתֵּר",
            "한국어 ᠮᠣᠩᠭᠣᠯ",
            "a\u{A0}b\u{202F}c\u{3000}d",
        ] {
            assert_eq!(unprintable(text).next(), None, "{text:?}");
        }
    }
}
