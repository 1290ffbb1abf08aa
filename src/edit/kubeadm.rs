//! kubeadm's ClusterConfiguration, from which its next upgrade writes the manifests again.
//!
//! `apiServer.extraArgs` is a map of flags without dashes up to v1beta3, and a list of names and
//! values from v1beta4 on (`cmd/kubeadm/app/apis/kubeadm` of the releases).

use serde_json::{Map, Value};

use super::{
    Edited, Error, File, FileLine, Splice,
    gates::{self, ESCAPES, List, MANY_LINES},
    line_around, line_end, line_of, spliced,
    yaml::{self, Node, Quotes},
};
use crate::kubernetes::{documents, feature_gates::Setting};

const FILE: File = File::ClusterConfiguration;

/// The key of the flag.
const FLAG: &str = "feature-gates";

/// The versions whose arguments are a map.
const MAPS: [&str; 3] =
    ["kubeadm.k8s.io/v1beta1", "kubeadm.k8s.io/v1beta2", "kubeadm.k8s.io/v1beta3"];

/// The versions whose arguments are a list.
const LISTS: [&str; 1] = ["kubeadm.k8s.io/v1beta4"];

/// Makes the configuration say this of a gate of the apiserver, and of nothing else anything else.
///
/// Sections that are not there are added; those that become empty go.
///
/// # Errors
/// Where the text cannot be edited with certainty.
pub fn set_gate(text: &str, gate: &str, setting: Setting) -> Result<Edited, Error> {
    let document = yaml::read(FILE, text)?;
    if document.is_flow() {
        return Err(Error::Json(document.place(FILE)));
    }
    let configuration = Configuration::find(&document)?;
    let lists = configuration.lists()?;
    let Some(plan) = gates::plan(FILE, &lists, gate, setting)? else {
        return Ok(Edited::Unchanged);
    };
    let mut splices = plan.splices;
    splices.extend(configuration.without(text, &plan.emptied)?);
    if plan.add {
        splices.push(configuration.with(text, &gates::alone(gate, setting))?);
    }
    let first = splices.iter().map(|splice| splice.at.start).min().unwrap_or_default();
    let unverified = |what: String| {
        let place = FileLine { file: FILE, line: line_of(text, first) };
        Error::Unverified { place, what }
    };
    let new = spliced(text, splices).ok_or_else(|| unverified("edits overlap".to_owned()))?;
    verify(text, &new, gate, setting).map_err(unverified)?;
    Ok(Edited::Changed(new))
}

/// The URL in the kubeconfigs that kubeadm writes: its `controlPlaneEndpoint`, a host with or without a
/// port. `None` if the configuration has none.
pub fn endpoint(text: &str) -> Option<String> {
    /// `KubeAPIServerPort` in `cmd/kubeadm/app/constants`, unless localAPIEndpoint says otherwise.
    const PORT: u16 = 6443;
    let document = yaml::read(FILE, text).ok()?;
    let endpoint = document.get("controlPlaneEndpoint")?.text().filter(|text| !text.is_empty())?;
    let authority: http::uri::Authority = endpoint.parse().ok()?;
    Some(match authority.port() {
        Some(_) => format!("https://{authority}"),
        None => format!("https://{authority}:{PORT}"),
    })
}

/// A flag that sets feature gates: the whole entry, and its value.
struct Flag<'n> {
    /// Where the entry begins: its key, or its item of the list.
    entry: &'n Node,
    value: &'n Node,
}

struct Configuration<'n> {
    document: &'n Node,
    /// Its arguments are a list.
    listed: bool,
    /// `apiServer`, key and value.
    apiserver: Option<&'n (Node, Node)>,
    /// `apiServer.extraArgs`, key and value.
    arguments: Option<&'n (Node, Node)>,
    flags: Vec<Flag<'n>>,
}

impl<'n> Configuration<'n> {
    fn find(document: &'n Node) -> Result<Self, Error> {
        let unexpected =
            |node: &Node, what: String| Err(Error::Unexpected { place: node.place(FILE), what });
        if document.get("kind").and_then(Node::text) != Some("ClusterConfiguration") {
            return unexpected(document, "it is no ClusterConfiguration".to_owned());
        }
        let version = document.get("apiVersion").and_then(Node::text).unwrap_or_default();
        let listed = LISTS.contains(&version);
        if !listed && !MAPS.contains(&version) {
            return unexpected(document, format!("apiVersion {version:?} is not known"));
        }
        let apiserver = document.entry("apiServer");
        let arguments = apiserver.and_then(|(_, apiserver)| apiserver.entry("extraArgs"));
        let mut flags = Vec::new();
        if let Some((_, all)) = arguments.filter(|(_, all)| !all.is_empty()) {
            let (fits, shape) = if listed {
                (!all.items().is_empty(), "extraArgs is no list")
            } else {
                (!all.entries().is_empty(), "extraArgs is no map")
            };
            if !fits {
                return unexpected(all, shape.to_owned());
            }
            for (name, value) in all.entries() {
                if name.text().is_some_and(is_feature_gates) {
                    flags.push(Flag { entry: name, value });
                }
            }
            for item in all.items() {
                let name = item.get("name").and_then(Node::text).unwrap_or_default();
                match item.get("value") {
                    Some(value) if is_feature_gates(name) => {
                        flags.push(Flag { entry: item, value });
                    }
                    None if is_feature_gates(name) => {
                        return unexpected(item, "this argument has no value".to_owned());
                    }
                    _ => {}
                }
            }
        }
        Ok(Self { document, listed, apiserver, arguments, flags })
    }

    fn lists(&self) -> Result<Vec<List<'n>>, Error> {
        let list = |flag: &Flag<'n>| {
            let Some(scalar) = flag.value.scalar() else {
                let what = "the value of feature-gates is no text".to_owned();
                return Err(Error::Unexpected { place: flag.value.place(FILE), what });
            };
            Ok(List {
                text: &scalar.value,
                at: scalar.literal.clone(),
                why: if scalar.lines { MANY_LINES } else { ESCAPES },
                line: flag.value.line,
                extends: scalar.quotes != Quotes::Plain || !self.in_braces(flag),
            })
        };
        self.flags.iter().map(list).collect()
    }

    /// Whether a flag stands in brackets or braces, where a comma ends what has no quotes.
    fn in_braces(&self, flag: &Flag<'_>) -> bool {
        flag.entry.is_flow()
            || self.arguments.is_some_and(|(_, arguments)| arguments.is_flow())
            || self.apiserver.is_some_and(|(_, apiserver)| apiserver.is_flow())
    }

    /// What takes these flags away, and with them the sections that hold nothing else.
    fn without(&self, text: &str, emptied: &[usize]) -> Result<Vec<Splice>, Error> {
        let mut splices = Vec::new();
        let flags: Vec<&Flag<'_>> = emptied.iter().map(|index| &self.flags[*index]).collect();
        for flag in &flags {
            let inline = flag.entry.is_flow() && !self.outer_braces();
            if self.in_braces(flag) && !inline {
                return Err(flag.entry.style(FILE, "the flag stands in braces"));
            }
            let lines = line_around(text, flag.entry.at.start).start
                ..line_around(text, flag.value.at.end.saturating_sub(1)).end;
            let kept = self.whole_entry(text, flag, lines.start, lines.end);
            if !kept {
                return Err(flag.entry.style(FILE, "the flag does not have its lines for itself"));
            }
            splices.push(Splice::cut(lines));
        }
        let (Some((key, arguments)), Some((apiserver_key, apiserver))) =
            (self.arguments, self.apiserver)
        else {
            return Ok(splices);
        };
        let count = arguments.entries().len() + arguments.items().len();
        if flags.is_empty() || flags.len() < count {
            return Ok(splices);
        }
        if apiserver.entries().len() > 1 {
            splices.push(Splice::cut(own_line(text, key)?));
        } else {
            // kubeadm itself writes this where there is nothing.
            own_line(text, apiserver_key)?;
            splices.push(Splice::insert(apiserver_key.at.end + 1, " {}".to_owned()));
            splices.push(Splice::cut(own_line(text, key)?));
        }
        Ok(splices)
    }

    fn outer_braces(&self) -> bool {
        self.arguments.is_some_and(|(_, arguments)| arguments.is_flow())
            || self.apiserver.is_some_and(|(_, apiserver)| apiserver.is_flow())
    }

    /// Whether these lines hold a flag's entry and, but for a comment behind it, nothing else.
    fn whole_entry(&self, text: &str, flag: &Flag<'_>, start: usize, end: usize) -> bool {
        let Some(lines) = text.get(start..end) else { return false };
        let before = text.get(start..flag.entry.at.start).unwrap_or_default();
        let bare = before.trim_start_matches(' ');
        let begins = if self.listed {
            bare.strip_prefix('-').is_some_and(|gap| gap.trim().is_empty())
        } else {
            bare.is_empty()
        };
        let alone = lines.lines().all(|line| !line.trim_start().starts_with('#'));
        let last = self.listed || lines.lines().count() == 1;
        begins && alone && last && lines.lines().count() <= 2
    }

    /// What adds the flag, with the sections that it needs.
    fn with(&self, text: &str, list: &str) -> Result<Splice, Error> {
        // What is there and empty is filled; it has no place for a second entry.
        if let Some(flag) = self.flags.last() {
            return Ok(Splice { at: flag.value.at.clone(), with: list.to_owned() });
        }
        let end = line_end(text);
        let entry = |indent: &str| {
            if self.listed {
                format!("{indent}- name: {FLAG}{end}{indent}  value: {list}{end}")
            } else {
                format!("{indent}{FLAG}: {list}{end}")
            }
        };
        // What kubeadm indents by, and a list not at all.
        let below =
            |indent: &str| if self.listed { indent.to_owned() } else { format!("{indent}  ") };
        let section = |indent: &str| format!("{indent}extraArgs:{end}{}", entry(&below(indent)));
        if let Some((key, arguments)) = self.arguments {
            let first = arguments.entries().first().map(|(key, _)| key);
            let indent = match first.or(arguments.items().first()) {
                Some(first) => indent_of(text, first)?,
                None => below(&indent_of(text, key)?),
            };
            return self.below(text, key, arguments, entry(&indent));
        }
        if let Some((key, apiserver)) = self.apiserver {
            let indent = match apiserver.entries().first() {
                Some((first, _)) => indent_of(text, first)?,
                None => format!("{}  ", indent_of(text, key)?),
            };
            return self.below(text, key, apiserver, section(&indent));
        }
        let Some((first, _)) = self.document.entries().first() else {
            return Err(self.document.style(FILE, "there is nothing in it"));
        };
        let line = line_around(text, first.at.start);
        if line.start != first.at.start {
            return Err(first.style(FILE, "the first key does not begin its line"));
        }
        Ok(Splice::insert(line.start, format!("apiServer:{end}{}", section("  "))))
    }

    /// New lines below a key: before what is there, or instead of nothing.
    fn below(&self, text: &str, key: &Node, value: &Node, lines: String) -> Result<Splice, Error> {
        if !value.is_empty() && value.is_flow() {
            return Err(value.style(FILE, "it is written in braces"));
        }
        let line = line_around(text, key.at.start);
        let colon = key.at.end + 1;
        if text.get(key.at.end..colon) != Some(":") || !text[line.clone()].ends_with('\n') {
            return Err(key.style(FILE, "this key is written in an unusual way"));
        }
        if value.is_empty() && value.line == key.line && !value.at.is_empty() {
            // `{}`, `[]` or `null` make way.
            let rest = text.get(value.at.end..line.end).unwrap_or_default();
            return Ok(Splice { at: colon..line.end, with: format!("{rest}{lines}") });
        }
        Ok(Splice::insert(own_line(text, key)?.end, lines))
    }
}

/// The line of a key that has it for itself, but for a comment.
fn own_line(text: &str, key: &Node) -> Result<std::ops::Range<usize>, Error> {
    let line = line_around(text, key.at.start);
    let rest = text.get(key.at.end..line.end).unwrap_or_default().strip_prefix(':');
    let alone = rest.map(str::trim).is_some_and(|rest| rest.is_empty() || rest.starts_with('#'));
    indent_of(text, key)?;
    if alone { Ok(line) } else { Err(key.style(FILE, "something else is on the line of this key")) }
}

/// The space before the first value of a line; in lists, before the dash.
fn indent_of(text: &str, node: &Node) -> Result<String, Error> {
    let line = line_around(text, node.at.start);
    let before = text.get(line.start..node.at.start).unwrap_or_default();
    let indent = before.trim_end_matches(' ');
    let indent = indent.strip_suffix('-').unwrap_or(before);
    if indent.bytes().all(|byte| byte == b' ') {
        Ok(indent.to_owned())
    } else {
        Err(node.style(FILE, "something else stands before it on its line"))
    }
}

fn is_feature_gates(name: &str) -> bool {
    name.replace('_', "-") == FLAG
}

/// Reads both texts and compares everything. Sections without anything in them count as none.
fn verify(before: &str, after: &str, gate: &str, setting: Setting) -> Result<(), String> {
    let parse = |text: &str| -> Result<Value, String> {
        documents::first(text).map_err(|why| format!("{why} then"))
    };
    let (mut old, mut new) = (parse(before)?, parse(after)?);
    let (old_args, new_args) = (take_arguments(&mut old)?, take_arguments(&mut new)?);
    if old != new {
        return Err("something besides the arguments".to_owned());
    }
    let is_gates = |(name, _): &(String, Value)| is_feature_gates(name);
    let (old_gates, old_others): (Vec<_>, Vec<_>) = old_args.into_iter().partition(is_gates);
    let (new_gates, new_others): (Vec<_>, Vec<_>) = new_args.into_iter().partition(is_gates);
    if old_others != new_others {
        return Err("other arguments".to_owned());
    }
    let lists = |all: Vec<(String, Value)>| -> Result<Vec<String>, String> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let all = all.iter().map(|(_, value)| text(value).ok_or("a list of gates is no text"));
        Ok(all.collect::<Result<_, _>>()?)
    };
    gates::compare(&lists(old_gates)?, &lists(new_gates)?, gate, setting)
}

/// Takes the arguments out of a configuration, and the section that held them where it is empty.
fn take_arguments(configuration: &mut Value) -> Result<Vec<(String, Value)>, String> {
    let configuration = configuration.as_object_mut().ok_or("it is no map then")?;
    let Some(apiserver) = configuration.get_mut("apiServer") else { return Ok(Vec::new()) };
    let arguments = apiserver.as_object_mut().and_then(|apiserver| apiserver.remove("extraArgs"));
    if apiserver.as_object().is_none_or(Map::is_empty) && !apiserver.is_string() {
        configuration.remove("apiServer");
    }
    match arguments {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(map)) => Ok(map.into_iter().collect()),
        Some(Value::Array(list)) => {
            let pair = |item: Value| {
                let Value::Object(mut item) = item else { return None };
                let name = item.remove("name")?.as_str()?.to_owned();
                let value = item.remove("value").unwrap_or_default();
                item.is_empty().then_some((name, value))
            };
            let pairs: Option<Vec<_>> = list.into_iter().map(pair).collect();
            pairs.ok_or_else(|| "an argument is no name and value".to_owned())
        }
        Some(_) => Err("extraArgs is neither a map nor a list".to_owned()),
    }
}

#[cfg(test)]
mod tests;
