//! Naming a few of many: the same words whatever the order, and never longer than a line.

use std::{collections::BTreeSet, fmt};

/// So many are named before the rest is counted.
pub(super) const SHOWN: usize = 3;

/// A group of nodes: the first names in alphabetical order, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameSummary<'a> {
    first: BTreeSet<&'a str>,
    count: usize,
}

impl<'a> NameSummary<'a> {
    /// Adds one.
    pub fn add(&mut self, name: &'a str) {
        self.count += 1;
        self.first.insert(name);
        if self.first.len() > SHOWN {
            self.first.pop_last();
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The first name, and how many more there are: for where several groups share a line.
    pub fn first_and_count(&self) -> String {
        let name = self.first.first().copied().unwrap_or_default();
        match self.count {
            0 | 1 => name.to_owned(),
            count => format!("{name} and {} more", count - 1),
        }
    }

    /// `s` where there is exactly one (he goes), nothing otherwise (they go).
    pub fn verb_s(&self) -> &'static str {
        if self.count == 1 { "s" } else { "" }
    }
}

impl<'a> FromIterator<&'a str> for NameSummary<'a> {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        let mut named = Self::default();
        names.into_iter().for_each(|name| named.add(name));
        named
    }
}

impl fmt::Display for NameSummary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = self.count - self.first.len();
        for (i, name) in self.first.iter().enumerate() {
            let last = i + 1 == self.first.len() && more == 0;
            f.write_str(match (i, last) {
                (0, _) => "",
                (_, true) => " and ",
                (_, false) => ", ",
            })?;
            f.write_str(name)?;
        }
        if more > 0 {
            write!(f, " and {more} more")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_names_then_a_count() {
        for (names, text) in [
            (&["a"][..], "a"),
            (&["b", "a"], "a and b"),
            (&["c", "a", "b"], "a, b and c"),
            (&["d", "c", "b", "a"], "a, b, c and 1 more"),
            (&["e", "a", "d", "c", "b"], "a, b, c and 2 more"),
        ] {
            assert_eq!(names.iter().copied().collect::<NameSummary>().to_string(), text);
        }
    }
}
