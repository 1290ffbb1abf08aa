//! The static pod manifest of a kube-apiserver.

use std::ops::Range;

use serde_json::Value;

use super::{
    Edited, Error, File, Place, Splice,
    gates::{self, List, Plan},
    line_around, line_end, line_of, spliced,
    yaml::{self, Node, Quotes},
};
use crate::decision::gate::Setting;

const FILE: File = File::Manifest;

/// The program, and the name of the container that runs it.
const PROGRAM: &str = "kube-apiserver";

/// What a manifest says of a gate, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// On or off.
    pub setting: Setting,
    /// The line, from 1.
    pub line: usize,
    /// The line without the space around it.
    pub text: String,
}

/// Makes the command line say this of a gate, and of nothing else anything else.
///
/// A gate that is named several times, the last of which is as it should be, is left alone.
///
/// # Errors
/// Where the manifest cannot be edited with certainty.
pub fn set_gate(text: &str, gate: &str, setting: Setting) -> Result<Edited, Error> {
    let document = read(text)?;
    let line = CommandLine::find(&document)?;
    let (flags, lists) = line.gates()?;
    let Some(plan) = gates::plan(FILE, &lists, gate, setting)? else {
        return Ok(Edited::Unchanged);
    };
    let splices = line.splices(text, &flags, plan, gate, setting)?;
    let first = splices.iter().map(|splice| splice.at.start).min().unwrap_or_default();
    let unverified = |what: String| {
        let place = Place { file: FILE, line: line_of(text, first) };
        Error::Unverified { place, what }
    };
    let new = spliced(text, splices).ok_or_else(|| unverified("edits overlap".to_owned()))?;
    verify(text, &new, gate, setting).map_err(unverified)?;
    Ok(Edited::Changed(new))
}

/// What the command line says of a gate, and where; `None` where it does not name it.
///
/// # Errors
/// Where the command line cannot be read with certainty.
pub fn gate(text: &str, gate: &str) -> Result<Option<Named>, Error> {
    let document = read(text)?;
    let (_, lists) = CommandLine::find(&document)?.gates()?;
    // To plan is to look whether all lists can be understood.
    gates::plan(FILE, &lists, gate, Setting::Default)?;
    Ok(gates::says(&lists, gate).map(|(setting, index)| {
        let line = lists[index].line;
        let text = text.lines().nth(line - 1).unwrap_or_default().trim().to_owned();
        Named { setting, line, text }
    }))
}

fn read(text: &str) -> Result<Node, Error> {
    let document = yaml::read(FILE, text)?;
    if document.is_flow() {
        return Err(Error::Json(document.place(FILE)));
    }
    Ok(document)
}

/// A word of the command line.
#[derive(Clone, Copy, Debug)]
struct Word<'n> {
    node: &'n Node,
    text: &'n str,
    /// The list that it is in, and where in it.
    list: &'n Node,
    index: usize,
}

/// The words from the program's name on.
struct CommandLine<'n>(Vec<Word<'n>>);

/// A flag with its list of gates: the index of the flag's word, and of the value's, which may be
/// the same.
struct Flag {
    flag: usize,
    value: usize,
}

impl<'n> CommandLine<'n> {
    fn find(document: &'n Node) -> Result<Self, Error> {
        let unexpected = |node: &Node, what: &str| Error::Unexpected {
            place: node.place(FILE),
            what: what.to_owned(),
        };
        if document.get("kind").and_then(Node::text) != Some("Pod") {
            return Err(unexpected(document, "it is no Pod"));
        }
        let containers = document.get("spec").and_then(|spec| spec.get("containers"));
        let containers = containers.map(Node::items).unwrap_or_default();
        let mut named =
            containers.iter().filter(|c| c.get("name").and_then(Node::text) == Some(PROGRAM));
        let (Some(container), None) = (named.next(), named.next()) else {
            let what = format!("it has not exactly one container {PROGRAM}");
            return Err(unexpected(document, &what));
        };
        let mut words = Vec::new();
        for key in ["command", "args"] {
            let Some(list) = container.get(key).filter(|list| !list.is_empty()) else { continue };
            if list.items().is_empty() {
                return Err(unexpected(list, "this is no list of arguments"));
            }
            for (index, node) in list.items().iter().enumerate() {
                let text = node.text().ok_or_else(|| unexpected(node, "this is no argument"))?;
                words.push(Word { node, text, list, index });
            }
        }
        let is_program = |word: &Word<'_>| word.text.rsplit('/').next() == Some(PROGRAM);
        let program = words.iter().position(is_program);
        // What follows a shell's script are arguments of the shell.
        let program =
            program.filter(|at| !words[..*at].iter().any(|word| takes_a_script(word.text)));
        let Some(program) = program else {
            return Err(Error::HiddenCommand(container.place(FILE)));
        };
        words.drain(..program);
        Ok(Self(words))
    }

    /// The words that set feature gates, and their lists.
    fn gates(&self) -> Result<(Vec<Flag>, Vec<List<'n>>), Error> {
        let (mut flags, mut lists) = (Vec::new(), Vec::new());
        let mut words = self.0.iter().enumerate().skip(1);
        while let Some((flag, word)) = words.next() {
            let (name, value) = match word.text.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.text, None),
            };
            if name.contains("$(") {
                return Err(Error::Variable(word.node.place(FILE)));
            }
            if name == "--" {
                return Err(word.node.style(FILE, "no flags are read after this argument"));
            }
            if !is_feature_gates(name) {
                continue;
            }
            let (value, text) = match value {
                Some(text) => (flag, text),
                None => match words.next() {
                    Some((value, next)) => (value, next.text),
                    None => {
                        let why = "--feature-gates has no value".to_owned();
                        return Err(Error::Gates { place: word.node.place(FILE), why });
                    }
                },
            };
            let Word { node, list, text: all, .. } = self.0[value];
            let scalar = node.scalar();
            let literal = scalar.and_then(|scalar| scalar.literal.clone());
            let quoted = scalar.is_some_and(|scalar| scalar.quotes != Quotes::Plain);
            flags.push(Flag { flag, value });
            lists.push(List {
                text,
                at: literal.map(|at| at.start + (all.len() - text.len())..at.end),
                line: node.line,
                // In brackets, a comma ends what has no quotes.
                extends: quoted || !list.is_flow(),
            });
        }
        Ok((flags, lists))
    }

    fn splices(
        &self,
        text: &str,
        flags: &[Flag],
        plan: Plan,
        gate: &str,
        setting: Setting,
    ) -> Result<Vec<Splice>, Error> {
        let mut splices = plan.splices;
        let mut gone: Vec<usize> = Vec::new();
        for flag in plan.emptied.iter().map(|index| &flags[*index]) {
            gone.extend(flag.flag..=flag.value);
        }
        for index in &gone {
            let word = &self.0[*index];
            let cut = if word.list.is_flow() {
                self.cut_from_brackets(text, *index, &gone)?
            } else {
                whole_line(text, word.node)?.0
            };
            splices.push(Splice::cut(cut));
        }
        if plan.add {
            let argument = format!("--feature-gates={}", gates::alone(gate, setting));
            splices.push(self.insertion(text, &argument)?);
        }
        Ok(splices)
    }

    /// The bytes of an item in brackets with the comma that goes with it: the one before, or the
    /// one after where no item before it stays.
    fn cut_from_brackets(
        &self,
        text: &str,
        index: usize,
        gone: &[usize],
    ) -> Result<Range<usize>, Error> {
        let word = self.0[index];
        let items = word.list.items();
        let leaves = |i: usize| {
            let is = |other: &usize| {
                let other = self.0[*other];
                std::ptr::eq(other.list, word.list) && other.index == i
            };
            gone.iter().any(is)
        };
        let cut = if (0..word.index).any(|before| !leaves(before)) {
            items[word.index - 1].at.end..word.node.at.end
        } else {
            let next = items.get(word.index + 1).map(|next| next.at.start);
            word.node.at.start..next.unwrap_or(word.node.at.end)
        };
        // Between two items there is nothing but a comma and space.
        let rest = word.node.at.clone();
        let around = [text.get(cut.start..rest.start), text.get(rest.end..cut.end)];
        let plain = |part: &Option<&str>| {
            part.unwrap_or_default().chars().all(|c| c == ',' || c.is_ascii_whitespace())
        };
        if around.iter().all(plain) {
            Ok(cut)
        } else {
            Err(word.node.style(FILE, "there are comments in these brackets"))
        }
    }

    /// A new argument after the last one, written like it.
    fn insertion(&self, text: &str, argument: &str) -> Result<Splice, Error> {
        let last = self.0[self.0.len() - 1];
        let siblings = self.0.iter().rev().filter(|word| std::ptr::eq(word.list, last.list));
        let like = siblings.clone().find(|word| word.text.starts_with("--")).unwrap_or(&last);
        let quotes = like.node.scalar().map_or(Quotes::Plain, |scalar| scalar.quotes);
        let item = quotes.around(argument);
        if last.list.is_flow() {
            return Ok(Splice::insert(last.node.at.end, format!(", {item}")));
        }
        let (line, prefix) = whole_line(text, last.node)?;
        let end = line_end(text);
        Ok(if text[line.clone()].ends_with('\n') {
            Splice::insert(line.end, format!("{prefix}{item}{end}"))
        } else {
            Splice::insert(line.end, format!("{end}{prefix}{item}"))
        })
    }
}

/// Whether this is a shell's `-c`, alone or among others as in `-ec`.
fn takes_a_script(word: &str) -> bool {
    word.strip_prefix('-').is_some_and(|flags| !flags.starts_with('-') && flags.contains('c'))
}

fn is_feature_gates(name: &str) -> bool {
    let bare = name.strip_prefix("--").or_else(|| name.strip_prefix('-'));
    bare.is_some_and(|bare| bare.replace('_', "-") == "feature-gates")
}

/// The line of an item of a list that has the line for itself, and what stands before the item.
fn whole_line<'t>(text: &'t str, node: &Node) -> Result<(Range<usize>, &'t str), Error> {
    let line = line_around(text, node.at.start);
    let before = text.get(line.start..node.at.start).unwrap_or_default();
    let after = text.get(node.at.end..line.end);
    let bare = before.trim_start_matches(' ');
    let dashed = bare.strip_prefix('-').is_some_and(|gap| !gap.is_empty() && gap.trim().is_empty());
    let alone =
        after.map(str::trim).is_some_and(|after| after.is_empty() || after.starts_with('#'));
    if !dashed || !alone {
        return Err(node.style(FILE, "this argument does not stand on one line of its own"));
    }
    // Without a line end of its own, the last line takes that of the line before.
    let own_end = text[line.clone()].ends_with('\n');
    let above = &text[..line.start];
    let above = above.strip_suffix('\n').map(|above| above.strip_suffix('\r').unwrap_or(above));
    let start = if own_end { line.start } else { above.unwrap_or_default().len() };
    Ok((start..line.end, before))
}

/// Reads both texts and compares everything.
fn verify(before: &str, after: &str, gate: &str, setting: Setting) -> Result<(), String> {
    let parse = |text: &str| -> Result<Value, String> {
        serde_saphyr::from_str(text).map_err(|error| format!("it is no YAML then: {error}"))
    };
    let (mut old, mut new) = (parse(before)?, parse(after)?);
    let (old_args, new_args) = (take_arguments(&mut old)?, take_arguments(&mut new)?);
    if old != new {
        return Err("something besides the arguments".to_owned());
    }
    let (old, new) = (Arguments::of(old_args), Arguments::of(new_args));
    if old.others != new.others {
        return Err("other arguments".to_owned());
    }
    gates::compare(&old.lists, &new.lists, gate, setting)
}

/// Takes the command and the arguments out of a Pod.
fn take_arguments(pod: &mut Value) -> Result<Vec<String>, String> {
    let containers = pod.pointer_mut("/spec/containers").and_then(Value::as_array_mut);
    let container = containers.into_iter().flatten().find(|c| c["name"] == PROGRAM);
    let container = container.and_then(Value::as_object_mut);
    let container = container.ok_or_else(|| "the container is gone".to_owned())?;
    let mut all = Vec::new();
    for key in ["command", "args"] {
        let Some(list) = container.remove(key) else { continue };
        for word in list.as_array().into_iter().flatten() {
            let word = word.as_str().ok_or_else(|| "an argument is no text".to_owned())?;
            all.push(word.to_owned());
        }
    }
    Ok(all)
}

/// The feature gates of a command line, and everything else.
#[derive(Default)]
struct Arguments {
    others: Vec<String>,
    lists: Vec<String>,
}

impl Arguments {
    fn of(words: Vec<String>) -> Self {
        let mut all = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            if !is_feature_gates(name) {
                all.others.push(word);
            } else if let Some(value) = value.or_else(|| words.next()) {
                all.lists.push(value);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests;
