//! Taking a boolean flag out of the words that become a command line.

use std::ops::Range;

use super::{
    Edited, Error, File, FileLine, Splice, line_around, line_of, spliced,
    words::{Word, Words},
};
use crate::kubernetes::arguments::{self, go_bool};

/// Words that belong together, from one setting of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The setting, for comparison.
    pub name: String,
    /// Its words.
    pub words: Words,
    /// Whether its words are arguments of the program. What else names the flag is not understood.
    pub arguments: bool,
}

impl Run {
    /// What it says without the flag.
    fn without(&self, flag: &str) -> (&str, Vec<String>) {
        let words = self.words.all.iter().map(Word::text);
        (&self.name, words.filter(|word| !self.arguments || !is_flag(word, flag)).collect())
    }
}

/// Takes a flag out of a text that `read` reads.
///
/// # Errors
/// Where the flag is named in a way that is not understood for certain.
pub fn remove(
    file: File,
    text: &str,
    read: impl Fn(&str) -> Vec<Run>,
    flag: &str,
) -> Result<Edited, Error> {
    let before = read(text);
    let mut cuts = Vec::new();
    for run in &before {
        cuts.extend(cuts_of(file, text, run, flag)?);
    }
    let Some(first) = cuts.iter().map(|cut| cut.start).min() else { return Ok(Edited::Unchanged) };
    let unverified = |what: &str| {
        let place = FileLine { file, line: line_of(text, first) };
        Error::Unverified { place, what: what.to_owned() }
    };
    let new = spliced(text, cuts.into_iter().map(Splice::cut).collect());
    let new = new.ok_or_else(|| unverified("edits overlap"))?;
    let after = read(&new);
    let flagged = |run: &Run| run.words.all.iter().any(|word| names(&word.text(), flag));
    if after.iter().any(flagged) {
        return Err(unverified("the flag is still there"));
    }
    let rest = |runs: &[Run]| -> Vec<(String, Vec<String>)> {
        let rest = runs.iter().map(|run| run.without(flag));
        rest.map(|(name, words)| (name.to_owned(), words)).collect()
    };
    if rest(&before) != rest(&after) {
        return Err(unverified("other words"));
    }
    Ok(Edited::Changed(new))
}

/// Whether a word is the flag, as the kubelet reads it.
fn is_flag(word: &str, flag: &str) -> bool {
    arguments::named(word).is_some_and(|(name, _)| name == flag)
}

/// Whether a word has the flag's name in it.
fn names(word: &str, flag: &str) -> bool {
    word.replace('_', "-").contains(flag)
}

fn cuts_of(file: File, text: &str, run: &Run, flag: &str) -> Result<Vec<Range<usize>>, Error> {
    let mut cuts = Vec::new();
    let mut ended = false;
    let mut kept = false;
    let words = &run.words.all;
    for (index, word) in words.iter().enumerate() {
        let place = FileLine { file, line: line_of(text, word.at.start) };
        let says = word.text();
        if !names(&says, flag) {
            ended |= says == "--";
            kept = true;
            continue;
        }
        if !run.arguments || ended || !is_flag(&says, flag) {
            return Err(Error::Mention(place));
        }
        if !run.words.closed {
            return Err(Error::Style { place, what: "a quote is not closed" });
        }
        let next = words.get(index + 1);
        let value = next.is_some_and(|next| go_bool(&next.text()).is_some());
        if !says.contains('=') && value {
            return Err(Error::SeparateValue(place));
        }
        let line = line_around(text, word.at.start);
        let alone = text[line.start..word.at.start].trim().is_empty()
            && text.get(word.at.end..line.end).is_some_and(|rest| rest.trim() == "\\");
        let before = index.checked_sub(1).and_then(|before| words.get(before));
        let cut = match (before, next) {
            // A line of a continued value goes as a whole.
            _ if alone => line,
            (Some(before), _) if kept => before.at.end..word.at.end,
            (_, Some(next)) => word.at.start..next.at.start,
            _ => word.at.clone(),
        };
        if text[cut.clone()].lines().any(|line| line.trim_start().starts_with(['#', ';'])) {
            let what = "there are comments between the flag and the words around it";
            return Err(Error::Style { place, what });
        }
        cuts.push(cut);
    }
    Ok(cuts)
}
