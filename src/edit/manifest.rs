//! The static pod manifest of a kube-apiserver.

use std::{collections::BTreeSet, ops::Range};

use serde_json::Value;

use super::{
    Edited, Error, File, FileLine, Splice,
    gates::{self, ESCAPES, List, ListEdit, MANY_LINES},
    line_around, line_end, line_of, spliced,
    yaml::{self, Node, Quotes},
};
use crate::kubernetes::{
    arguments::{
        Part,
        apiserver::{self, Container},
    },
    documents,
    feature_gates::Setting,
};

const FILE: File = File::Manifest;

/// What a manifest says of a gate, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateLine {
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
    let gates = line.gates()?;
    let Some(plan) = gates::plan(FILE, &gates.lists, gate, setting)? else {
        return Ok(Edited::Unchanged);
    };
    let splices = line.splices(text, &gates, plan, gate, setting)?;
    let first = splices.iter().map(|splice| splice.at.start).min().unwrap_or_default();
    let unverified = |what: String| {
        let place = FileLine { file: FILE, line: line_of(text, first) };
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
pub fn gate(text: &str, gate: &str) -> Result<Option<GateLine>, Error> {
    let document = read(text)?;
    let lists = CommandLine::find(&document)?.gates()?.lists;
    gates::understood(FILE, &lists)?;
    Ok(gates::says(&lists, gate).map(|(setting, index)| {
        let line = lists[index].line;
        let text = text.lines().nth(line - 1).unwrap_or_default().trim().to_owned();
        GateLine { setting, line, text }
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

/// The words of the container, and where the apiserver's own arguments begin.
struct CommandLine<'n> {
    words: Vec<Word<'n>>,
    first: usize,
}

/// A flag with its list of gates: the index of the flag's word, and of the value's, which may be
/// the same.
struct Flag {
    flag: usize,
    value: usize,
}

/// What a command line says of feature gates.
struct Gates<'n> {
    flags: Vec<Flag>,
    lists: Vec<List<'n>>,
    /// The word after which no flags are read.
    end: Option<&'n Node>,
}

impl<'n> CommandLine<'n> {
    fn find(document: &'n Node) -> Result<Self, Error> {
        if document.get("kind").and_then(Node::text) != Some("Pod") {
            return Err(unexpected(document, "it is no Pod"));
        }
        let containers = document.get("spec").and_then(|spec| spec.get("containers"));
        let containers = containers.map(Node::items).unwrap_or_default();
        let name = |container: &'n Node| container.get("name").and_then(Node::text);
        let read = containers.iter().map(|container| Ok((container, words(container)?)));
        let read = read.collect::<Result<Vec<(&Node, Vec<Word<'n>>)>, Error>>()?;
        let named: Vec<(&str, Vec<&str>)> = read
            .iter()
            .map(|(container, words)| {
                let words = words.iter().map(|word| word.text).collect();
                (name(container).unwrap_or_default(), words)
            })
            .collect();
        let at = match apiserver::container(&named) {
            Container::At(at) if named[at].0 == apiserver::PROGRAM => at,
            _ => {
                let what = format!("it has not exactly one container {}", apiserver::PROGRAM);
                return Err(unexpected(document, &what));
            }
        };
        let Some(first) = apiserver::first_argument(&named[at].1) else {
            return Err(Error::HiddenCommand(containers[at].place(FILE)));
        };
        let words = read.into_iter().nth(at).map(|(_, words)| words).unwrap_or_default();
        Ok(Self { words, first })
    }

    /// The words that set feature gates, and their lists.
    fn gates(&self) -> Result<Gates<'n>, Error> {
        let args: Vec<&str> = self.words[self.first..].iter().map(|word| word.text).collect();
        let mut gates = Gates { flags: Vec::new(), lists: Vec::new(), end: None };
        for part in apiserver::parts(&args) {
            let (at, certain) = match part {
                Part::Flag(flag) if flag.name == apiserver::FEATURE_GATES => {
                    let (at, value) = (self.first + flag.at, self.first + flag.value_at);
                    let Some(text) = flag.value else {
                        let place = self.words[at].node.place(FILE);
                        let why = "--feature-gates has no value".to_owned();
                        return Err(Error::Gates { place, why });
                    };
                    gates.flags.push(Flag { flag: at, value });
                    gates.lists.push(self.list(value, text));
                    (at, flag.certain)
                }
                Part::Flag(_) => continue,
                Part::End { at, certain } => {
                    gates.end = Some(self.words[self.first + at].node);
                    (self.first + at, certain)
                }
                Part::Variable { at } => {
                    return Err(Error::Variable(self.words[self.first + at].node.place(FILE)));
                }
            };
            if !certain {
                let place = self.words[at].node.place(FILE);
                let why = "this may be a value of the flag before it".to_owned();
                return Err(Error::Gates { place, why });
            }
        }
        Ok(gates)
    }

    /// The list of gates at the end of a word.
    fn list(&self, value: usize, text: &'n str) -> List<'n> {
        let Word { node, list, text: all, .. } = self.words[value];
        let scalar = node.scalar();
        let literal = scalar.and_then(|scalar| scalar.literal.clone());
        let quoted = scalar.is_some_and(|scalar| scalar.quotes != Quotes::Plain);
        List {
            text,
            at: literal.map(|at| at.start + (all.len() - text.len())..at.end),
            why: if scalar.is_some_and(|scalar| scalar.lines) { MANY_LINES } else { ESCAPES },
            line: node.line,
            // In brackets, a comma ends what has no quotes.
            extends: quoted || !list.is_flow(),
        }
    }

    fn splices(
        &self,
        text: &str,
        gates: &Gates<'_>,
        plan: ListEdit,
        gate: &str,
        setting: Setting,
    ) -> Result<Vec<Splice>, Error> {
        let mut splices = plan.splices;
        if plan.add
            && let Some(end) = gates.end
        {
            return Err(end.style(FILE, "no flags are read after this argument"));
        }
        let mut gone: Vec<usize> = Vec::new();
        for flag in plan.emptied.iter().map(|index| &gates.flags[*index]) {
            gone.extend(flag.flag..=flag.value);
        }
        for index in &gone {
            let word = &self.words[*index];
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
        let word = self.words[index];
        let items = word.list.items();
        let leaves = |i: usize| {
            let is = |other: &usize| {
                let other = self.words[*other];
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
        let last = self.words[self.words.len() - 1];
        let siblings = self.words.iter().rev().filter(|word| std::ptr::eq(word.list, last.list));
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

/// The words in which a container starts its program.
fn words(container: &Node) -> Result<Vec<Word<'_>>, Error> {
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
    Ok(words)
}

fn unexpected(node: &Node, what: &str) -> Error {
    Error::Unexpected { place: node.place(FILE), what: what.to_owned() }
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
        documents::first(text).map_err(|why| format!("{why} then"))
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
    let container = containers.into_iter().flatten().find(|c| c["name"] == apiserver::PROGRAM);
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
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let first = apiserver::first_argument(&words).unwrap_or_default();
        let (mut lists, mut taken) = (Vec::new(), BTreeSet::new());
        for part in apiserver::parts(&words[first..]) {
            if let Part::Flag(flag) = part
                && flag.name == apiserver::FEATURE_GATES
            {
                lists.extend(flag.value.map(str::to_owned));
                taken.extend([first + flag.at, first + flag.value_at]);
            }
        }
        let others = words.iter().enumerate().filter(|(at, _)| !taken.contains(at));
        Self { others: others.map(|(_, word)| (*word).to_owned()).collect(), lists }
    }
}

#[cfg(test)]
mod tests;
