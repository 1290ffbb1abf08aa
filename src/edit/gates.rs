//! One gate in lists of gates: `A=true,B=false`, several of which add up.

use std::ops::Range;

use super::{Error, File, FileLine, Splice};
use crate::kubernetes::{
    arguments::go_bool,
    feature_gates::{FeatureGates, Setting},
};

/// A list of gates in a file.
#[derive(Clone, Debug)]
pub struct List<'a> {
    /// The list.
    pub text: &'a str,
    /// Its bytes; `None` where the file spells them in another way.
    pub at: Option<Range<usize>>,
    /// In which way then.
    pub why: &'static str,
    /// The line that it is on.
    pub line: usize,
    /// Whether a comma can be written there.
    pub extends: bool,
}

/// A list is spelled with escapes.
pub const ESCAPES: &str = "the gate is in a list with escapes";
/// A list goes over more than one line.
pub const MANY_LINES: &str = "the gate is in a list over several lines";

/// What has to be done to lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListEdit {
    /// New bytes within lists.
    pub splices: Vec<Splice>,
    /// The lists of which nothing is left, by index.
    pub emptied: Vec<usize>,
    /// No list takes the gate: a new one has to be written.
    pub add: bool,
}

/// Where a list names a gate: from one comma to the next, and what is said of it.
struct Mention {
    segment: usize,
    value: Range<usize>,
    on: bool,
}

/// The segments between the commas of a list.
fn segments(list: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut start = 0;
    list.split(',').map(move |segment| {
        let range = start..start + segment.len();
        start = range.end + 1;
        range
    })
}

fn mentions(list: &str, gate: &str) -> Vec<Mention> {
    let mention = |(segment, range): (usize, Range<usize>)| {
        let (name, value) = list[range.clone()].split_once('=')?;
        let start = range.end - value.trim_start().len();
        let trimmed = value.trim();
        (name.trim() == gate).then_some(Mention {
            segment,
            value: start..start + trimmed.len(),
            on: go_bool(trimmed)?,
        })
    };
    segments(list).enumerate().filter_map(mention).collect()
}

/// What lists say of a gate, and the index of the one that says it: the last word wins.
pub fn says(lists: &[List<'_>], gate: &str) -> Option<(Setting, usize)> {
    let last = |(index, list): (usize, &List<'_>)| {
        let on = mentions(list.text, gate).last()?.on;
        Some((if on { Setting::On } else { Setting::Off }, index))
    };
    lists.iter().enumerate().rev().find_map(last)
}

/// Looks whether lists can be understood.
///
/// # Errors
/// Where one cannot.
pub fn understood(file: File, lists: &[List<'_>]) -> Result<(), Error> {
    for list in lists {
        let gates = FeatureGates::from_args([format!("--feature-gates={}", list.text).as_str()]);
        if let Some(why) = gates.unreadable() {
            let place = FileLine { file, line: list.line };
            return Err(Error::Gates { place, why: why.to_owned() });
        }
    }
    Ok(())
}

/// What makes lists say this of a gate; `None` where they do. Whatever was said of it more than
/// once is then said once.
///
/// # Errors
/// Where a list cannot be understood, or is written in a way that is not edited.
pub fn plan(
    file: File,
    lists: &[List<'_>],
    gate: &str,
    setting: Setting,
) -> Result<Option<ListEdit>, Error> {
    understood(file, lists)?;
    let now = says(lists, gate);
    if now.map_or(Setting::Default, |(now, _)| now) == setting {
        return Ok(None);
    }
    let word = match setting {
        Setting::On => Some("true"),
        Setting::Off => Some("false"),
        Setting::Default => None,
    };
    let mut plan = ListEdit::default();
    for (index, list) in lists.iter().enumerate() {
        let mut named = mentions(list.text, gate);
        if named.is_empty() {
            continue;
        }
        let place = FileLine { file, line: list.line };
        let at = |range: Range<usize>| match &list.at {
            Some(at) => Ok(at.start + range.start..at.start + range.end),
            None => Err(Error::Style { place, what: list.why }),
        };
        // The last word is the one that counts, so that is the one that stays.
        if let Some(word) = word
            && now.is_some_and(|(_, last)| last == index)
            && let Some(last) = named.pop()
        {
            plan.splices.push(Splice { at: at(last.value)?, with: word.to_owned() });
        }
        let gone: Vec<usize> = named.iter().map(|mention| mention.segment).collect();
        let all: Vec<Range<usize>> = segments(list.text).collect();
        let stays = |(i, range): &(usize, &Range<usize>)| {
            !gone.contains(i) && !list.text[(*range).clone()].trim().is_empty()
        };
        if !all.iter().enumerate().any(|segment| stays(&segment)) {
            plan.emptied.push(index);
            continue;
        }
        for segment in &gone {
            let Some(range) = all.get(*segment) else { continue };
            // With the comma before it, or the one after it where it is the first.
            let first = (0..*segment).all(|before| gone.contains(&before));
            let with_comma =
                if first { range.start..range.end + 1 } else { range.start - 1..range.end };
            plan.splices.push(Splice::cut(at(with_comma)?));
        }
    }
    if let (Some(word), None) = (word, now) {
        let says_something = |text: &str| text.chars().any(|c| c != ',' && !c.is_whitespace());
        let last = lists.iter().rev().find_map(|list| {
            list.at.as_ref().filter(|_| list.extends && says_something(list.text))
        });
        match last {
            Some(at) => plan.splices.push(Splice::insert(at.end, format!(",{gate}={word}"))),
            None => plan.add = true,
        }
    }
    Ok(Some(plan))
}

/// A list that says this of a gate alone.
pub fn alone(gate: &str, setting: Setting) -> String {
    format!("{gate}={}", setting == Setting::On)
}

/// Compares the lists before and after an edit; in words what differs that should not.
///
/// # Errors
/// Where they differ in more than the one gate, or do not say of it what they should.
pub fn compare(
    before: &[String],
    after: &[String],
    gate: &str,
    setting: Setting,
) -> Result<(), String> {
    let gates = |lists: &[String]| {
        let args: Vec<String> =
            lists.iter().map(|list| format!("--feature-gates={list}")).collect();
        FeatureGates::from_args(args.iter().map(String::as_str))
    };
    let (old, new) = (gates(before), gates(after));
    let wanted = match setting {
        Setting::Default => None,
        Setting::Off => Some(false),
        Setting::On => Some(true),
    };
    if new.get(gate) != wanted {
        return Err(format!("{gate} is not what it should be"));
    }
    if old.without(gate) != new.without(gate) || others(before, gate) != others(after, gate) {
        return Err("other feature gates".to_owned());
    }
    Ok(())
}

/// Everything that is said of other gates, in order.
fn others<'a>(lists: &'a [String], gate: &str) -> Vec<&'a str> {
    let pairs = lists.iter().flat_map(|list| list.split(',')).map(str::trim);
    let other = |pair: &&str| {
        !pair.is_empty() && pair.split_once('=').is_none_or(|(name, _)| name.trim() != gate)
    };
    pairs.filter(other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(text: &str, setting: Setting) -> String {
        let list = List { text, at: Some(0..text.len()), why: ESCAPES, line: 1, extends: true };
        match plan(File::Manifest, &[list], "G", setting).unwrap() {
            None => "unchanged".to_owned(),
            Some(plan) if !plan.emptied.is_empty() => "emptied".to_owned(),
            Some(plan) if plan.add => "added".to_owned(),
            Some(plan) => super::super::spliced(text, plan.splices).unwrap(),
        }
    }

    #[test]
    fn one_gate_in_one_list() {
        use Setting::{Default, Off, On};
        for (text, setting, expected) in [
            ("A=true", Off, "A=true,G=false"),
            ("A=true", On, "A=true,G=true"),
            ("A=true,", Off, "A=true,,G=false"),
            ("", Off, "added"),
            (" , ", Off, "added"),
            ("A=true", Default, "unchanged"),
            ("G=true", Off, "G=false"),
            ("G=T,A=1", Off, "G=false,A=1"),
            ("A=1, G = true ,B=0", Off, "A=1, G = false ,B=0"),
            ("A=1,G=F", Off, "unchanged"),
            ("G=true", Default, "emptied"),
            ("G=true,,", Default, "emptied"),
            ("G=true,G=false", Default, "emptied"),
            ("A=1,G=true", Default, "A=1"),
            ("G=true,A=1", Default, "A=1"),
            ("A=1, G=true, B=0", Default, "A=1, B=0"),
            ("G=1,G=0,A=1,G=1", Default, "A=1"),
            ("G=1,G=0,A=1,G=1", Off, "A=1,G=false"),
            ("G=1,G=0,A=1,G=1", On, "unchanged"),
            // Another gate whose name begins alike.
            ("GG=true,AG=true", Off, "GG=true,AG=true,G=false"),
        ] {
            assert_eq!(edited(text, setting), expected, "{text} {setting:?}");
        }
    }

    #[test]
    fn the_last_word_wins_over_several_lists() {
        let list = |text, start| List {
            text,
            at: Some(start..start + 6),
            why: ESCAPES,
            line: 1,
            extends: true,
        };
        let lists = [list("G=true", 0), list("A=true", 10), list("G=fals", 20)];
        assert!(plan(File::Manifest, &lists, "G", Setting::Off).is_err(), "no Go boolean");
        let lists = [list("G=true", 0), list("A=true", 10), list("G=true", 20)];
        assert_eq!(says(&lists, "G"), Some((Setting::On, 2)));
        let seen = plan(File::Manifest, &lists, "G", Setting::Off).unwrap().unwrap();
        let kept = Splice { at: 22..26, with: "false".to_owned() };
        assert_eq!(seen, ListEdit { splices: vec![kept], emptied: vec![0], add: false });
        let seen = plan(File::Manifest, &lists, "G", Setting::Default).unwrap().unwrap();
        assert_eq!(seen.emptied, [0, 2]);
    }

    #[test]
    fn a_list_that_cannot_be_understood_is_refused() {
        for text in ["A", "G=off", "$(GATES)", "A=true,$(MORE)"] {
            let list = List { text, at: Some(0..text.len()), why: ESCAPES, line: 7, extends: true };
            let refused = plan(File::Manifest, &[list], "G", Setting::Off).unwrap_err();
            assert_eq!(refused.reason(), "FeatureGatesUnreadable");
            assert!(refused.to_string().starts_with("the apiserver's manifest, line 7: "));
        }
        let list = List { text: "G=true", at: None, why: ESCAPES, line: 7, extends: true };
        let refused = plan(File::Manifest, &[list], "G", Setting::Off).unwrap_err();
        assert_eq!(refused.reason(), "Style");
    }
}
