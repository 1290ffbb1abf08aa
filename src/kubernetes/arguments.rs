//! Command lines as Kubernetes' own programs read them: pflag, with `_` in names as `-`
//! (`WordSepNormalizeFunc`). Pure.
//!
//! pflag knows of each flag whether it takes a value, and takes the next word for it, whatever that
//! word looks like. Which flags there are depends on the version. Of some it is known ([`Known`]);
//! behind any other one, a word that looks like a flag may be one or may be a value, and is not
//! [`Flag::certain`].

pub mod apiserver;
pub mod kubelet;
pub mod rancher;

/// The flag that sets feature gates.
pub const FEATURE_GATES: &str = "feature-gates";

/// What is known of a program's flags.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Flags that never take the next word, sorted.
    booleans: &'static [&'static str],
    /// Flags that always do.
    valued: &'static [&'static str],
}

/// A flag on a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag<'a> {
    /// Its name without dashes, with `-` for `_`.
    pub name: String,
    /// The index of its word.
    pub at: usize,
    /// Its value.
    pub value: Option<&'a str>,
    /// The index of the word that holds the value: the flag's own, or the next one.
    pub value_at: usize,
    /// Whether it is one for certain, and not the value of the flag before it.
    pub certain: bool,
}

/// What a word of a command line is, as far as anybody asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A flag, with its value.
    Flag(Flag<'a>),
    /// `--`: no flags are read after it.
    End {
        /// The index of the word.
        at: usize,
        /// Whether it is no value.
        certain: bool,
    },
    /// A word in the place of a flag that a variable of the container becomes: it may be any flag.
    Variable {
        /// The index of the word.
        at: usize,
    },
}

/// A word as a flag: its name with `-` for `_`, and what stands behind `=`.
pub fn named(word: &str) -> Option<(String, Option<&str>)> {
    let rest = word.strip_prefix("--").filter(|rest| !rest.is_empty())?;
    let (name, value) = match rest.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (rest, None),
    };
    Some((name.replace('_', "-"), value))
}

/// Whether the kubelet puts something else in place of a part of this word when it starts a
/// container.
fn holds_variable(text: &str) -> bool {
    text.contains("$(")
}

/// The parts of a command line's arguments.
pub fn parts<'a>(words: &[&'a str], known: Known) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    // The word may be the value of the one before it; `--` may have ended the flags.
    let (mut value, mut ended) = (false, false);
    let mut words = words.iter().copied().enumerate().peekable();
    while let Some((at, word)) = words.next() {
        let certain = !std::mem::take(&mut value) && !ended;
        if word == "--" {
            parts.push(Part::End { at, certain });
            if certain {
                break;
            }
            ended = true;
            continue;
        }
        let head = word.split('=').next().unwrap_or_default();
        if holds_variable(head) {
            parts.push(Part::Variable { at });
            value = true;
            continue;
        }
        let Some((name, given)) = named(word) else {
            // The one short flag that takes a value.
            if word == "-v" {
                words.next_if(|(_, next)| !next.starts_with("--"));
            }
            continue;
        };
        let mut flag = Flag { at, value: given, value_at: at, certain, name };
        if given.is_none() && known.booleans.binary_search(&&*flag.name).is_err() {
            let valued = known.valued.contains(&&*flag.name);
            let next = words.next_if(|(_, next)| valued || !next.starts_with("--"));
            if let Some((next, text)) = next {
                (flag.value, flag.value_at) = (Some(text), next);
            }
            value = next.is_none();
        }
        parts.push(Part::Flag(flag));
    }
    parts
}

/// The value of a flag that takes a text; the last one wins.
fn text<'a>(words: &[&'a str], known: Known, flag: &str) -> Option<&'a str> {
    let parts = parts(words, known);
    parts.into_iter().rev().find_map(|part| match part {
        Part::Flag(found) if found.name == flag => found.value,
        _ => None,
    })
}

/// A boolean as Go's flags take it: `strconv.ParseBool`.
pub fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Known = Known { booleans: &["bool", "on"], valued: &["list"] };

    fn shown(line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split(' ').collect();
        let show = |part| match part {
            Part::Flag(Flag { name, value, certain, .. }) => {
                let value = value.map(|value| format!("={value}")).unwrap_or_default();
                format!("{name}{value}{}", if certain { "" } else { "?" })
            }
            Part::End { certain: true, .. } => "end".to_owned(),
            Part::End { certain: false, .. } => "end?".to_owned(),
            Part::Variable { .. } => "variable".to_owned(),
        };
        parts(&words, KNOWN).into_iter().map(show).collect()
    }

    #[test]
    fn words_are_flags_and_values() {
        for (line, expected) in [
            ("--a=b --c_d=e=f", &["a=b", "c-d=e=f"][..]),
            // A value is what follows, unless the flag is a boolean.
            ("--a b --bool c --on", &["a=b", "bool", "on"]),
            ("--list --on --on", &["list=--on", "on"]),
            ("--list", &["list"]),
            ("--list -- --on", &["list=--", "on"]),
            // Behind a flag of which nothing is known.
            ("--a --on --on", &["a", "on?", "on"]),
            ("--a --b --on", &["a", "b?", "on?"]),
            ("--a -- --on", &["a", "end?", "on?"]),
            ("--a -5 --on", &["a=-5", "on"]),
            // Nothing but flags before two dashes.
            ("x --on -- --on", &["on", "end"]),
            ("-v 4 --on", &["on"]),
            ("-v --on", &["on"]),
            ("-on -x=y", &[]),
            // Variables.
            ("--a $(X) --b=$(Y)", &["a=$(X)", "b=$(Y)"]),
            ("--bool $(X) --on", &["bool", "variable", "on?"]),
            ("--$(X)=1 --on", &["variable", "on?"]),
            ("$(X)", &["variable"]),
        ] {
            assert_eq!(shown(line), expected, "{line}");
        }
    }

    #[test]
    fn what_is_known_is_sorted() {
        for known in [kubelet::KNOWN, apiserver::KNOWN] {
            assert!(known.booleans.is_sorted());
        }
    }
}
