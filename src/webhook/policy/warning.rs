//! Warnings as an apiserver passes them on: short, and in one line.

use std::fmt;

/// As many characters an apiserver leaves of each warning once there are too many
/// (`truncateItemRunes` in apiserver/pkg/endpoints/filters/warning.go; in all it passes on 4096).
pub const LENGTH: usize = 256;

/// What stands for the rest of a warning that is too long; in ASCII, because it travels in a header.
const CUT: &str = "...";

/// One warning. It never has more than [`LENGTH`] characters, nor control characters, for which an
/// apiserver drops a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(String);

impl Warning {
    /// This text, as far as it goes.
    pub fn new(text: &str) -> Self {
        let whole = text.chars().count() <= LENGTH;
        let kept = if whole { LENGTH } else { LENGTH - CUT.len() };
        let plain = |character: char| if character.is_control() { ' ' } else { character };
        let mut cut: String = text.chars().take(kept).map(plain).collect();
        if !whole {
            cut.push_str(CUT);
        }
        Self(cut)
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The first names by alphabet, `shown` at most, and how many more there are; fewer of them where
/// they would need more than `room` characters.
pub(super) fn names<'a>(
    names: impl IntoIterator<Item = &'a str>,
    shown: usize,
    room: usize,
) -> String {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    let told = |shown: usize| match (shown, names.len() - shown) {
        (_, 0) => names.join(", "),
        (0, more) => format!("{more} of them"),
        (_, more) => format!("{} and {more} more", names[..shown].join(", ")),
    };
    let fits = |text: &String| text.chars().count() <= room;
    (1..=shown.min(names.len())).rev().map(told).find(fits).unwrap_or_else(|| told(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_warning_is_longer_than_an_apiserver_passes_on() {
        for (text, expected) in [
            (String::new(), String::new()),
            ("a b".to_owned(), "a b".to_owned()),
            ("two\nlines\u{7}".to_owned(), "two lines ".to_owned()),
            ("ä".repeat(256), "ä".repeat(256)),
            ("ä".repeat(257), "ä".repeat(253) + "..."),
        ] {
            assert_eq!(Warning::new(&text).to_string(), expected);
        }
    }

    #[test]
    fn five_names_or_as_many_as_there_is_room_for() {
        let long = "n".repeat(253);
        for (all, room, expected) in [
            (&["b", "a"][..], 100, "a, b"),
            (&["e", "d", "c", "b", "a"], 100, "a, b, c, d, e"),
            (&["f", "e", "d", "c", "b", "a", "g"], 100, "a, b, c, d, e and 2 more"),
            (&["f", "e", "d", "c", "b", "a", "g"], 16, "a, b and 5 more"),
            (&["f", "e", "d", "c", "b", "a", "g"], 5, "7 of them"),
            (&[&long], 100, "1 of them"),
            (&["a", &long], 100, "a and 1 more"),
        ] {
            assert_eq!(names(all.iter().copied(), 5, room), expected);
        }
    }
}
