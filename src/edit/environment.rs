//! Files for systemd's `EnvironmentFile=`, from which a kubelet gets arguments: kubeadm's
//! `kubeadm-flags.env`, `/etc/default/kubelet`, `/etc/sysconfig/kubelet`.
//!
//! The syntax is that of systemd.exec(5): a variable's value is quoted as in a shell, and where the
//! unit puts it on the command line it is split into words, with quotes once more. Which variables
//! the unit takes, the file does not tell: all of them count.

use super::{
    Edited, Error, File,
    flag::{self, Run},
    words::{self, Backslash, Glyph, Word},
};

/// Takes a boolean flag, named without dashes, out of every variable.
///
/// # Errors
/// Where the flag is named in a way that is not understood for certain.
pub fn remove_flag(text: &str, flag: &str) -> Result<Edited, Error> {
    flag::remove(File::Environment, text, runs, flag)
}

/// The words of all variables, in order.
pub fn words(text: &str) -> Vec<String> {
    let runs = runs(text);
    runs.iter().flat_map(|run| &run.words.all).map(Word::text).collect()
}

/// The words of each variable, in order.
pub fn variables_words(text: &str) -> Vec<Vec<String>> {
    runs(text).iter().map(|run| run.words.all.iter().map(Word::text).collect()).collect()
}

/// Whether a character is in the name or the value of a variable, and not only in comments.
pub fn holds(text: &str, char: char) -> bool {
    let holds = |variable: &Variable| {
        variable.name.contains(char) || variable.value.iter().any(|glyph| glyph.char == char)
    };
    variables(text).iter().any(holds)
}

fn runs(text: &str) -> Vec<Run> {
    let run = |variable: Variable| {
        let mut words = words::split(&variable.value, Backslash::Plain);
        words.closed &= variable.closed;
        Run { name: variable.name, words, arguments: true }
    };
    variables(text).into_iter().map(run).collect()
}

/// A variable that a file sets.
#[derive(Debug, Default)]
struct Variable {
    name: String,
    value: Vec<Glyph>,
    /// Its quotes are closed.
    closed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a name.
    Line,
    Comment,
    Name,
    /// At the beginning of a value, and after each closing quote: here quotes open.
    Start,
    /// In a value without quotes: here quotes are characters.
    Bare,
    BareEscape,
    Single,
    Double,
    DoubleEscape,
}

/// A comment ends with its line, whatever stands at the line's end. Before systemd 254 a backslash
/// there made a comment of the next line, too; to edit that one does no harm.
fn variables(text: &str) -> Vec<Variable> {
    let mut all = Vec::new();
    let mut now = Variable::default();
    let mut state = State::Line;
    let mut escape = 0;
    for (start, char) in text.char_indices() {
        let at = start..start + char.len_utf8();
        let newline = matches!(char, '\n' | '\r');
        let space = char.is_ascii_whitespace();
        let escaped = Glyph { char, at: escape..at.end };
        let glyph = Glyph { char, at };
        state = match state {
            State::Line if matches!(char, '#' | ';') => State::Comment,
            State::Line if space => State::Line,
            State::Line => {
                now = Variable { name: char.to_string(), ..Variable::default() };
                State::Name
            }
            State::Comment | State::Name if newline => State::Line,
            State::Comment => State::Comment,
            State::Name if char == '=' => State::Start,
            State::Name => {
                now.name.push(char);
                State::Name
            }
            State::Start | State::Bare if newline => {
                all.push(finished(std::mem::take(&mut now), true));
                State::Line
            }
            State::Start if char == '\'' => State::Single,
            State::Start if char == '"' => State::Double,
            State::Start | State::Bare if char == '\\' => {
                escape = start;
                State::BareEscape
            }
            State::Start if space => State::Start,
            State::BareEscape => {
                if !newline {
                    now.value.push(escaped);
                }
                State::Bare
            }
            State::Single if char == '\'' => State::Start,
            State::Double if char == '"' => State::Start,
            State::Double if char == '\\' => {
                escape = start;
                State::DoubleEscape
            }
            State::DoubleEscape => {
                match char {
                    '"' | '\\' | '`' | '$' => now.value.push(escaped),
                    '\n' => {}
                    // Any other backslash is one.
                    _ => now.value.extend([Glyph { char: '\\', at: escape..start }, glyph]),
                }
                State::Double
            }
            State::Start | State::Bare => {
                now.value.push(glyph);
                State::Bare
            }
            State::Single | State::Double => {
                now.value.push(glyph);
                state
            }
        };
    }
    if !matches!(state, State::Line | State::Comment | State::Name) {
        let closed = matches!(state, State::Start | State::Bare);
        all.push(finished(now, closed));
    }
    all
}

fn finished(mut variable: Variable, closed: bool) -> Variable {
    variable.name.truncate(variable.name.trim_end().len());
    variable.closed = closed;
    variable
}

#[cfg(test)]
mod tests;
