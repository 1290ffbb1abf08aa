//! systemd units and drop-ins: the arguments in `ExecStart=` and in variables of `Environment=`.
//!
//! The syntax is that of systemd.syntax(7): a backslash at the end of a line continues it, comment
//! lines in between are skipped, and words are quoted as systemd.service(5) says.

use super::{
    Edited, Error, File,
    flag::{self, Run},
    words::{self, Backslash, Glyph, Word, Words},
};

/// Takes a boolean flag, named without dashes, out of the command lines and variables.
///
/// # Errors
/// Where the flag is named in a way that is not understood for certain, by a shell in `ExecStart=`
/// say.
pub fn remove_flag(text: &str, flag: &str) -> Result<Edited, Error> {
    flag::remove(File::Unit, text, runs, flag)
}

/// What a unit says that counts for the arguments of its program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Words on the command line of `ExecStart=`, or those of a variable.
    Arguments(Vec<String>),
    /// Other commands, which may write what the program reads.
    Other(String),
    /// A file with variables, which may begin with `-` where it need not exist; an empty one takes
    /// all before it back.
    EnvironmentFile(String),
}

/// What a unit or a drop-in says that counts for the arguments of its program, in order.
pub fn parts(text: &str) -> Vec<Part> {
    let files = |setting: Setting| {
        let file = words::text(&setting.value).trim().to_owned();
        (setting.name == "EnvironmentFile").then_some(Part::EnvironmentFile(file))
    };
    let files = settings(text).into_iter().filter_map(files);
    let commands = runs(text).into_iter().filter_map(|run| {
        let words = || run.words.all.iter().map(Word::text).collect::<Vec<_>>();
        match run.arguments {
            true => Some(Part::Arguments(words())),
            false if run.words.all.is_empty() => None,
            false => Some(Part::Other(words().join(" "))),
        }
    });
    commands.chain(files).collect()
}

fn runs(text: &str) -> Vec<Run> {
    let mut runs = Vec::new();
    for setting in settings(text) {
        let words = words::split(&setting.value, Backslash::C);
        match setting.name.as_str() {
            "ExecStart" => runs.push(Run { name: setting.name, words, arguments: true }),
            "Environment" => runs.extend(variables(&setting.name, &words)),
            // Other commands may write what the kubelet reads; other settings are about it only.
            name if name.starts_with("Exec") => {
                runs.push(Run { name: setting.name, words, arguments: false });
            }
            name => {
                let name = format!("{name}={}", words::text(&setting.value));
                let words = Words { all: Vec::new(), closed: true };
                runs.push(Run { name, words, arguments: false });
            }
        }
    }
    runs
}

/// The variables that a setting sets. Their values are split once more where they are used.
fn variables(setting: &str, assignments: &Words) -> Vec<Run> {
    let run = |assignment: &Word| {
        let equals = assignment.glyphs.iter().position(|glyph| glyph.char == '=')?;
        let (name, value) = assignment.glyphs.split_at(equals);
        let mut words = words::split(&value[1..], Backslash::Plain);
        words.closed &= assignments.closed;
        Some(Run { name: format!("{setting}={}", words::text(name)), words, arguments: true })
    };
    let unnamed = |assignment: &Word| {
        let words = Words { all: vec![assignment.clone()], closed: assignments.closed };
        Run { name: setting.to_owned(), words, arguments: false }
    };
    assignments.all.iter().map(|word| run(word).unwrap_or_else(|| unnamed(word))).collect()
}

/// A setting with its lines put together.
struct Setting {
    name: String,
    value: Vec<Glyph>,
}

fn settings(text: &str) -> Vec<Setting> {
    let mut all = Vec::new();
    let mut logical: Vec<Glyph> = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let at = start;
        start += line.len();
        let bare = line.trim_end_matches(['\n', '\r']);
        if bare.trim_start().starts_with(['#', ';']) {
            continue;
        }
        let glyph = |(i, char): (usize, char)| Glyph { char, at: at + i..at + i + char.len_utf8() };
        logical.extend(bare.char_indices().map(glyph));
        let backslashes = bare.bytes().rev().take_while(|byte| *byte == b'\\').count();
        if backslashes % 2 == 1 {
            // It becomes a space, with the line's end.
            if let Some(last) = logical.last_mut() {
                *last = Glyph { char: ' ', at: last.at.start..start };
            }
            continue;
        }
        all.extend(setting(std::mem::take(&mut logical)));
    }
    all.extend(setting(logical));
    all
}

fn setting(logical: Vec<Glyph>) -> Option<Setting> {
    let equals = logical.iter().position(|glyph| glyph.char == '=')?;
    let (name, value) = logical.split_at(equals);
    Some(Setting { name: words::text(name).trim().to_owned(), value: value[1..].to_vec() })
}

#[cfg(test)]
mod tests;
