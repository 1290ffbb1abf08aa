//! The feature gates that a command line sets.

use std::collections::BTreeMap;

use super::arguments::{FEATURE_GATES, Flag, Part, apiserver, go_bool, kubelet};

/// The gates that one program's command line sets, with the rest left to their defaults.
///
/// Read as `component-base/featuregate` and pflag read them: every `--feature-gates` adds to the
/// ones before, the last word about a gate wins, values are Go booleans.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FeatureGates {
    set: BTreeMap<String, bool>,
    arguments: Vec<Argument>,
    unreadable: Option<String>,
    of_another_version: bool,
}

/// The flags by which a component behaves as one of an earlier version does: its gates are those of that
/// version (`component-base/compatibility`).
pub const EMULATION: [&str; 2] = ["emulated-version", "emulation-forward-compatible"];

/// A `--feature-gates` as it stands on the command line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Argument {
    /// The flag and what parts it from its value.
    flag: String,
    list: String,
}

impl FeatureGates {
    /// Reads the arguments of a kube-apiserver, without the program's name.
    pub fn from_args<'a>(args: impl IntoIterator<Item = &'a str>) -> Self {
        let args: Vec<&str> = args.into_iter().collect();
        Self::from_parts(&args, apiserver::parts(&args))
    }

    /// Gates of which not all are seen.
    pub fn hidden(why: &str) -> Self {
        Self { unreadable: Some(why.to_owned()), ..Self::default() }
    }

    /// Reads the arguments of a kubelet, without the program's name. Its configuration file may set
    /// more.
    pub fn from_kubelet_args(args: &[&str]) -> Self {
        Self::from_parts(args, kubelet::parts(args))
    }

    fn from_parts(args: &[&str], parts: Vec<Part<'_>>) -> Self {
        let mut gates = Self::default();
        for part in parts {
            let (at, certain) = match part {
                Part::Flag(Flag { name, at, value, value_at, certain })
                    if name == FEATURE_GATES =>
                {
                    match value {
                        Some(value) => {
                            let (flag, _) = args[at].split_once('=').unwrap_or((args[at], ""));
                            let between = if value_at == at { '=' } else { ' ' };
                            let flag = format!("{flag}{between}");
                            gates.arguments.push(Argument { flag, list: value.to_owned() });
                            gates.add(value);
                        }
                        None => gates.unreadable = Some("--feature-gates has no value".to_owned()),
                    }
                    (at, certain)
                }
                Part::Flag(Flag { name, at, certain, .. }) if EMULATION.contains(&&*name) => {
                    gates.of_another_version = true;
                    let why = format!("{} gives it the gates of another version", args[at]);
                    gates.unreadable = Some(why);
                    (at, certain)
                }
                Part::Flag(_) => continue,
                Part::End { at, certain } => (at, certain),
                Part::Variable { at } => {
                    let why = format!("{} may be any flag, --feature-gates too", args[at]);
                    gates.unreadable = Some(why);
                    continue;
                }
            };
            if !certain {
                let why = format!("{} may be a value of the flag before it", args[at]);
                gates.unreadable = Some(why);
            }
        }
        gates
    }

    fn add(&mut self, value: &str) {
        // A container's $(VAR) is replaced when it starts; with what is not known here.
        if value.contains("$(") {
            self.unreadable = Some(format!("--feature-gates={value} holds a variable"));
            return;
        }
        for pair in value.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let parsed =
                pair.split_once('=').and_then(|(name, on)| Some((bare(name), go_bool(on.trim())?)));
            match parsed {
                Some((name, on)) => {
                    self.set.insert(name.to_owned(), on);
                }
                None => self.unreadable = Some(format!("--feature-gates holds {pair:?}")),
            }
        }
    }

    /// What was said about one gate by name; `None` where nothing was.
    pub fn get(&self, gate: &str) -> Option<bool> {
        self.set.get(gate).copied()
    }

    /// The same, but for one gate: for comparing two command lines.
    pub fn without(mut self, gate: &str) -> Self {
        self.set.remove(gate);
        self.arguments.clear();
        self
    }

    /// The arguments that name one of these gates, as they stand, and what is left of each without
    /// the gates; `None` where nothing is.
    pub fn arguments_without(&self, gates: &[&str]) -> Vec<(String, Option<String>)> {
        let named =
            |pair: &&str| pair.split_once('=').is_some_and(|(name, _)| gates.contains(&bare(name)));
        let naming =
            self.arguments.iter().filter(|argument| argument.list.split(',').any(|p| named(&p)));
        let both = |Argument { flag, list }: &Argument| {
            let left: Vec<&str> = list.split(',').filter(|pair| !named(pair)).collect();
            let left = left.join(",");
            let empty = left.trim_matches([',', ' ']).is_empty();
            (format!("{flag}{list}"), (!empty).then(|| format!("{flag}{left}")))
        };
        naming.map(both).collect()
    }

    /// The same, of a component whose gates are not those of its version's number, or are.
    pub fn as_of_another_version(mut self, is: bool) -> Self {
        self.of_another_version |= is;
        self
    }

    /// Whether the gates that it has are not those of its version's number: it emulates another one, or is
    /// a pre-release.
    pub fn of_another_version(&self) -> bool {
        self.of_another_version
    }

    /// Every gate that is named, and its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, bool)> {
        self.set.iter().map(|(name, on)| (name.as_str(), *on))
    }

    /// Why the flag could not be read in full, if so.
    pub fn unreadable(&self) -> Option<&str> {
        self.unreadable.as_deref()
    }

    /// Those of `gates` that are on the command line, whatever their value: an apiserver that no
    /// longer has them refuses to start.
    pub fn named<'a>(&self, gates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        gates.into_iter().filter(|gate| self.set.contains_key(*gate)).collect()
    }
}

impl FromIterator<(String, bool)> for FeatureGates {
    fn from_iter<I: IntoIterator<Item = (String, bool)>>(set: I) -> Self {
        Self { set: set.into_iter().collect(), ..Self::default() }
    }
}

/// A gate's name without the component that apiservers from 1.31 on take before it
/// (`component-base/compatibility/registry.go`).
fn bare(name: &str) -> &str {
    let name = name.trim();
    name.strip_prefix("kube:").map_or(name, str::trim)
}

/// What a command line says of one gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    /// It is not named: the version's default holds.
    Default,
    /// It is set to false.
    Off,
    /// It is set to true.
    On,
}
