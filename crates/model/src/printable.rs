//! Which characters a text may have that people write and read: those that are shown. One that is invisible, or turns the direction of what stands
//! beside it, makes texts look alike that are not, and a text look empty that is none.

/// The characters of a text that are not to be in it, each with its place, counted in characters from 0: control characters, line and paragraph
/// separators, and what is invisible (most of Unicode's category Cf, and the letters and marks of other categories that are drawn as nothing).
///
/// Joiners and variation selectors may stand behind a character that they change: Persian writes words with U+200C, Malayalam and emoji with
/// U+200D, and no script does so behind a letter of ASCII.
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
        // Variation selectors, and the grapheme joiner.
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

/// Whether a character is drawn as nothing. Those of category Cf that are drawn, such as U+0600, the Arabic number sign, are not.
fn is_hidden(character: char) -> bool {
    matches!(
        character,
        // The soft hyphen.
        '\u{00AD}'
        // Marks that say in which direction the text beside them runs.
        | '\u{061C}' | '\u{200E}' | '\u{200F}'
        // Line and paragraph separators, and what embeds or overrides a direction.
        | '\u{2028}'..='\u{202E}'
        // Fillers of Hangul, and inherent vowels of Khmer.
        | '\u{115F}' | '\u{1160}' | '\u{3164}' | '\u{FFA0}' | '\u{17B4}' | '\u{17B5}'
        // Spaces without width, invisible operators, and what isolates a direction.
        | '\u{180E}' | '\u{200B}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}'
        // Annotations, shorthand, music and tags.
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
            // Joiners and selectors that have nothing to change.
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
