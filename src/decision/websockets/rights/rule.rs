//! What one rule of RBAC gives, read as the apiserver's authorizer reads it
//! (`pkg/apis/rbac/v1/evaluation_helpers.go`): `*` is every resource, `*/exec` is that subresource of
//! every resource, and neither `pods/*` nor `*/*` is a wildcard.

use std::{collections::BTreeSet, fmt};

/// The subresource of a pod by which a stream is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subresource {
    /// Attach.
    Attach,
    /// Exec, and with it `kubectl cp`.
    Exec,
    /// Port-forward.
    PortForward,
}

impl Subresource {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Attach, Self::Exec, Self::PortForward];

    /// Its name behind the slash.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attach => "attach",
            Self::Exec => "exec",
            Self::PortForward => "portforward",
        }
    }

    /// The resource as a rule names it.
    pub fn resource(self) -> &'static str {
        match self {
            Self::Attach => "pods/attach",
            Self::Exec => "pods/exec",
            Self::PortForward => "pods/portforward",
        }
    }
}

/// What is asked of the authorizer for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// What a WebSocket, which begins with a GET, has always needed.
    Get,
    /// What SPDY's POST needs, and since 1.35 a WebSocket too.
    Create,
}

impl Verb {
    /// The verb as a rule names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Create => "create",
        }
    }
}

/// How a rule comes to speak of a subresource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// It names it: whoever wrote the rule wanted streams.
    Named,
    /// It says `*`: whoever wrote it may not have thought of streams.
    Wildcard,
}

/// The pods that a rule speaks of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Names {
    /// Every pod.
    All,
    /// Those of `resourceNames`; never empty.
    Only(BTreeSet<String>),
}

impl Names {
    /// Those of both.
    pub fn and(self, other: &Self) -> Self {
        match (self, other) {
            (Self::Only(mut names), Self::Only(more)) => {
                names.extend(more.iter().cloned());
                Self::Only(names)
            }
            _ => Self::All,
        }
    }

    /// Those that are among others, and those that are not; `None` where none is. All pods are among
    /// all only.
    pub fn split(&self, others: &Self) -> Option<(Self, Option<Self>)> {
        match (self, others) {
            (_, Self::All) => Some((self.clone(), None)),
            (Self::All, Self::Only(_)) => None,
            (Self::Only(names), Self::Only(others)) => {
                let (here, left): (BTreeSet<String>, BTreeSet<String>) =
                    names.iter().cloned().partition(|name| others.contains(name));
                let left = (!left.is_empty()).then_some(Self::Only(left));
                (!here.is_empty()).then_some((Self::Only(here), left))
            }
        }
    }
}

/// A rule, as far as it is about resources.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    /// `apiGroups`.
    pub api_groups: Vec<String>,
    /// `resources`.
    pub resources: Vec<String>,
    /// `resourceNames`; empty for every name.
    pub resource_names: Vec<String>,
    /// `verbs`.
    pub verbs: Vec<String>,
}

impl Rule {
    /// The rule that gives `create`, and nothing else, on these subresources of these pods.
    pub fn create(subresources: impl IntoIterator<Item = Subresource>, names: &Names) -> Self {
        let resource_names = match names {
            Names::All => Vec::new(),
            Names::Only(names) => names.iter().cloned().collect(),
        };
        let resources = subresources.into_iter().map(|sub| sub.resource().to_owned());
        Self {
            api_groups: vec![String::new()],
            resources: resources.collect(),
            resource_names,
            verbs: vec![Verb::Create.as_str().to_owned()],
        }
    }

    /// Whether it gives this verb on a subresource of pods, and how it comes to it.
    pub fn gives(&self, verb: Verb, subresource: Subresource) -> Option<Reach> {
        const ALL: &str = "*";
        let has = |list: &[String], wanted: &str| list.iter().any(|e| e == ALL || e == wanted);
        if !has(&self.verbs, verb.as_str()) || !has(&self.api_groups, "") {
            return None;
        }
        let names = |resource: &String| {
            resource == subresource.resource()
                || resource.strip_prefix("*/") == Some(subresource.as_str())
        };
        if self.resources.iter().any(names) {
            return Some(Reach::Named);
        }
        self.resources.iter().any(|resource| resource == ALL).then_some(Reach::Wildcard)
    }

    /// The pods that it speaks of.
    pub fn names(&self) -> Names {
        match self.resource_names.as_slice() {
            [] => Names::All,
            names => Names::Only(names.iter().cloned().collect()),
        }
    }
}

/// As an item of `rules` in YAML.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |list: &[String]| {
            let quoted: Vec<String> = list.iter().map(|text| quoted(text)).collect();
            format!("[{}]", quoted.join(", "))
        };
        write!(f, "- apiGroups: {}\n  resources: ", list(&self.api_groups))?;
        f.write_str(&list(&self.resources))?;
        if !self.resource_names.is_empty() {
            write!(f, "\n  resourceNames: {}", list(&self.resource_names))?;
        }
        write!(f, "\n  verbs: {}", list(&self.verbs))
    }
}

/// A text as a scalar of YAML, whatever stands in it.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Rule {
        Rule {
            api_groups: list(groups),
            resources: list(resources),
            resource_names: Vec::new(),
            verbs: list(verbs),
        }
    }

    #[test]
    fn what_a_wildcard_is() {
        use Reach::{Named, Wildcard};
        for (groups, resource, verb, expected) in [
            ("", "pods/exec", "get", Some(Named)),
            ("*", "pods/exec", "get", Some(Named)),
            ("apps", "pods/exec", "get", None),
            ("", "*/exec", "get", Some(Named)),
            ("", "*", "get", Some(Wildcard)),
            ("", "*", "*", Some(Wildcard)),
            // These look like wildcards, and are none.
            ("", "pods/*", "get", None),
            ("", "*/*", "get", None),
            ("", "*/", "get", None),
            ("", "pods", "get", None),
            ("", "exec", "get", None),
            ("", "pods/attach", "get", None),
            ("", "*/attach", "get", None),
            ("", "Pods/exec", "get", None),
            ("", "pods/exec", "create", None),
            ("", "pods/exec", "*", Some(Named)),
            ("", "pods/exec", "GET", None),
            ("", "pods/exec", "watch", None),
        ] {
            let rule = rule(&[groups], &[resource], &[verb]);
            assert_eq!(rule.gives(Verb::Get, Subresource::Exec), expected, "{rule:?}");
        }
        let create = rule(&[""], &["pods/exec"], &["create"]);
        assert_eq!(create.gives(Verb::Create, Subresource::Exec), Some(Named));
        let nothing = rule(&[], &["pods/exec"], &["get"]);
        assert_eq!(nothing.gives(Verb::Get, Subresource::Exec), None);
        let both = rule(&[""], &["*", "pods/exec"], &["get"]);
        assert_eq!(both.gives(Verb::Get, Subresource::Exec), Some(Named));
        assert_eq!(both.gives(Verb::Get, Subresource::Attach), Some(Wildcard));
    }

    #[test]
    fn a_rule_is_written_as_yaml() {
        let names = Names::Only(BTreeSet::from(["12e5".to_owned(), "web-0".to_owned()]));
        let rule = Rule::create([Subresource::Attach, Subresource::Exec], &names);
        assert_eq!(
            rule.to_string(),
            "- apiGroups: [\"\"]\n  resources: [\"pods/attach\", \"pods/exec\"]\n  \
             resourceNames: [\"12e5\", \"web-0\"]\n  verbs: [\"create\"]"
        );
    }
}
