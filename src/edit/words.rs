//! Words as systemd splits them, each with the bytes that it stands in.

use std::ops::Range;

/// A character of a value, and the bytes that say it: two for an escaped one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glyph {
    /// The character.
    pub char: char,
    /// Its bytes.
    pub at: Range<usize>,
}

/// A word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// What it says, without quotes.
    pub glyphs: Vec<Glyph>,
    /// Its bytes, with its quotes.
    pub at: Range<usize>,
}

impl Word {
    /// What it says.
    pub fn text(&self) -> String {
        text(&self.glyphs)
    }
}

/// What characters say.
pub fn text(glyphs: &[Glyph]) -> String {
    glyphs.iter().map(|glyph| glyph.char).collect()
}

/// What a backslash does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backslash {
    /// The next character loses its meaning (where the value of a variable is split).
    Plain,
    /// As in C (where a line of a unit is split).
    C,
}

/// Words, and whether every quote among them is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// The words.
    pub all: Vec<Word>,
    /// Every quote is closed, and every backslash has something after it.
    pub closed: bool,
}

/// Splits a value: at white space, but for what is in quotes or behind a backslash, as systemd's
/// `extract_first_word` does it. Quotes may begin within a word.
pub fn split(glyphs: &[Glyph], backslash: Backslash) -> Words {
    let mut all = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote = None;
    let mut escaped: Option<&Glyph> = None;
    for glyph in glyphs {
        if quote.is_none() && escaped.is_none() && glyph.char.is_ascii_whitespace() {
            all.extend(word.take());
            continue;
        }
        let at = glyph.at.clone();
        let word = word.get_or_insert_with(|| Word { glyphs: Vec::new(), at: at.clone() });
        word.at.end = at.end;
        if let Some(before) = escaped.take() {
            let at = before.at.start..at.end;
            match (backslash, glyph.char) {
                (Backslash::Plain, char) => word.glyphs.push(Glyph { char, at }),
                (Backslash::C, c) => match unescaped(c) {
                    Some(char) => word.glyphs.push(Glyph { char, at }),
                    // The rest of what C has says no letter of a flag that anybody writes so.
                    None => word.glyphs.extend([before.clone(), glyph.clone()]),
                },
            }
        } else if glyph.char == '\\' {
            escaped = Some(glyph);
        } else if quote == Some(glyph.char) {
            quote = None;
        } else if quote.is_none() && matches!(glyph.char, '\'' | '"') {
            quote = Some(glyph.char);
        } else {
            word.glyphs.push(glyph.clone());
        }
    }
    all.extend(word);
    Words { all, closed: quote.is_none() && escaped.is_none() }
}

fn unescaped(c: char) -> Option<char> {
    match c {
        '\\' | '"' | '\'' => Some(c),
        's' => Some(' '),
        't' => Some('\t'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glyphs(text: &str) -> Vec<Glyph> {
        let glyph = |(at, char): (usize, char)| Glyph { char, at: at..at + char.len_utf8() };
        text.char_indices().map(glyph).collect()
    }

    #[test]
    fn words_and_their_bytes() {
        for (text, backslash, expected) in [
            ("", Backslash::Plain, &[][..]),
            ("  --a   --b=c ", Backslash::Plain, &[("--a", "--a"), ("--b=c", "--b=c")]),
            ("--a 'b c' \"\"", Backslash::Plain, &[("--a", "--a"), ("b c", "'b c'"), ("", "\"\"")]),
            ("--a=\"b c\"d e", Backslash::Plain, &[("--a=b cd", "--a=\"b c\"d"), ("e", "e")]),
            ("a\\ b \"c\\\"d\"", Backslash::Plain, &[("a b", "a\\ b"), ("c\"d", "\"c\\\"d\"")]),
            ("a\\nb", Backslash::Plain, &[("anb", "a\\nb")]),
            ("a\\sb\\x20", Backslash::C, &[("a b\\x20", "a\\sb\\x20")]),
            ("ä\t'ö'", Backslash::C, &[("ä", "ä"), ("ö", "'ö'")]),
        ] {
            let words = split(&glyphs(text), backslash);
            let seen: Vec<(String, &str)> =
                words.all.iter().map(|word| (word.text(), &text[word.at.clone()])).collect();
            let seen: Vec<(&str, &str)> = seen.iter().map(|(text, raw)| (&**text, *raw)).collect();
            assert_eq!(seen, expected, "{text}");
            assert!(words.closed, "{text}");
        }
    }

    #[test]
    fn an_open_quote_is_told() {
        for text in ["'a b", "a \"b", "a\\"] {
            assert!(!split(&glyphs(text), Backslash::Plain).closed, "{text}");
        }
    }
}
