//! Roles, what they are aggregated from, and the bindings that give them to somebody.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{rule::Rule, subject::Subject};

/// What the names of roles begin with that belong to Kubernetes itself.
const SYSTEM: &str = "system:";

/// A kind of RBAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Role.
    Role,
    /// ClusterRole.
    ClusterRole,
    /// RoleBinding.
    RoleBinding,
    /// ClusterRoleBinding.
    ClusterRoleBinding,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Role, Self::ClusterRole, Self::RoleBinding, Self::ClusterRoleBinding];

    /// The kind as an object names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Role => "Role",
            Self::ClusterRole => "ClusterRole",
            Self::RoleBinding => "RoleBinding",
            Self::ClusterRoleBinding => "ClusterRoleBinding",
        }
    }

    /// The resource as kubectl and rules name it.
    pub fn resource(self) -> &'static str {
        match self {
            Self::Role => "roles",
            Self::ClusterRole => "clusterroles",
            Self::RoleBinding => "rolebindings",
            Self::ClusterRoleBinding => "clusterrolebindings",
        }
    }
}

/// Where a right holds, and where a role or binding is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// In every namespace, those to come as well.
    Cluster,
    /// In one.
    Namespace(String),
}

impl Scope {
    /// Whether what holds here holds in all of the other.
    pub fn covers(&self, other: &Self) -> bool {
        *self == Self::Cluster || self == other
    }

    /// The namespace, where it is one.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Cluster => None,
            Self::Namespace(namespace) => Some(namespace),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("all namespaces"),
            Self::Namespace(namespace) => write!(f, "namespace {namespace}"),
        }
    }
}

/// What identifies a role: a ClusterRole where its scope is the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleName {
    /// Where it is.
    pub scope: Scope,
    /// Its name.
    pub name: String,
}

impl RoleName {
    /// The ClusterRole of this name.
    pub fn cluster(name: impl Into<String>) -> Self {
        Self { scope: Scope::Cluster, name: name.into() }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self.scope {
            Scope::Cluster => Kind::ClusterRole,
            Scope::Namespace(_) => Kind::Role,
        }
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        named(f, self.kind(), &self.scope, &self.name)
    }
}

/// What identifies a binding: a ClusterRoleBinding where its scope is the cluster. What it gives
/// holds in its scope, wherever its role is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BindingName {
    /// Where it is.
    pub scope: Scope,
    /// Its name.
    pub name: String,
}

impl BindingName {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self.scope {
            Scope::Cluster => Kind::ClusterRoleBinding,
            Scope::Namespace(_) => Kind::RoleBinding,
        }
    }
}

impl fmt::Display for BindingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        named(f, self.kind(), &self.scope, &self.name)
    }
}

fn named(f: &mut fmt::Formatter<'_>, kind: Kind, scope: &Scope, name: &str) -> fmt::Result {
    match scope.namespace() {
        Some(namespace) => write!(f, "{} {namespace}/{name}", kind.as_str()),
        None => write!(f, "{} {name}", kind.as_str()),
    }
}

/// A binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The role that it gives.
    pub role: RoleName,
    /// To whom.
    pub subjects: Vec<Subject>,
}

/// A role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// Its rules. Those of an aggregated role are written by the controller manager.
    pub rules: Vec<Rule>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Which roles its rules are taken from; `None` where they are its own.
    pub aggregation: Option<Vec<LabelSelector>>,
    /// The apiserver puts it back to what it was at each start.
    pub reconciled: bool,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// It has one of the values.
    In,
    /// It has none of the values, or is not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

/// One condition on a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// How it is compared.
    pub operator: Operator,
    /// With what.
    pub values: Vec<String>,
}

/// Selects roles by their labels. The empty one selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// Each has to be met.
    pub requirements: Vec<Requirement>,
}

impl LabelSelector {
    fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|Requirement { key, operator, values }| {
            let value = labels.get(key);
            let one_of = value.is_some_and(|value| values.contains(value));
            match operator {
                Operator::In => one_of,
                Operator::NotIn => !one_of,
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }
}

/// All roles, by name.
pub type Roles = BTreeMap<RoleName, Role>;

/// Whether a role is Kubernetes' own: a change to it would be undone, or lost with the next release.
pub fn is_built_in(name: &RoleName, role: &Role) -> bool {
    role.reconciled || is_system(name)
}

/// Whether its name is of those that Kubernetes keeps for itself.
pub fn is_system(name: &RoleName) -> bool {
    name.name.starts_with(SYSTEM)
}

/// The rules of a role. Where nobody has filled in those of an aggregated one yet, they are taken
/// from its sources.
pub fn rules<'a>(roles: &'a Roles, name: &RoleName) -> Vec<&'a Rule> {
    let Some(role) = roles.get(name) else { return Vec::new() };
    if role.aggregation.is_none() || !role.rules.is_empty() {
        return role.rules.iter().collect();
    }
    let sources = sources(roles, name);
    sources.iter().filter_map(|source| roles.get(source)).flat_map(|role| &role.rules).collect()
}

/// The roles in which the rules of a role stand: itself, or those that it is aggregated from, and
/// they in turn.
pub fn sources(roles: &Roles, name: &RoleName) -> BTreeSet<RoleName> {
    let (mut seen, mut found) = (BTreeSet::new(), BTreeSet::new());
    let mut open = vec![name.clone()];
    while let Some(name) = open.pop() {
        let Some(role) = roles.get(&name) else { continue };
        if !seen.insert(name.clone()) {
            continue;
        }
        match &role.aggregation {
            None => {
                found.insert(name);
            }
            Some(selectors) => open.extend(roles.iter().filter_map(|(other, role)| {
                let selected = selectors.iter().any(|selector| selector.selects(&role.labels));
                (other.kind() == Kind::ClusterRole && selected).then(|| other.clone())
            })),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn selector(key: &str, operator: Operator, values: &[&str]) -> LabelSelector {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        LabelSelector { requirements: vec![Requirement { key: key.to_owned(), operator, values }] }
    }

    #[test]
    fn labels_are_selected_as_kubernetes_does() {
        use Operator::{DoesNotExist, Exists, In, NotIn};
        let a = labels(&[("k", "a")]);
        let none = labels(&[]);
        for (selector, has_a, has_none) in [
            (LabelSelector::default(), true, true),
            (selector("k", In, &["a", "b"]), true, false),
            (selector("k", In, &["b"]), false, false),
            (selector("k", NotIn, &["a"]), false, true),
            (selector("k", NotIn, &["b"]), true, true),
            (selector("k", Exists, &[]), true, false),
            (selector("k", DoesNotExist, &[]), false, true),
        ] {
            assert_eq!((selector.selects(&a), selector.selects(&none)), (has_a, has_none));
        }
    }

    #[test]
    fn rules_are_taken_from_where_they_stand() {
        let rule = |verb: &str| Rule { verbs: vec![verb.to_owned()], ..Rule::default() };
        let of = |labelled: &str, rules: Vec<Rule>, from: Option<&str>| Role {
            rules,
            labels: labels(&[(labelled, "true")]),
            aggregation: from.map(|key| vec![selector(key, Operator::Exists, &[])]),
            reconciled: false,
        };
        let roles = Roles::from([
            // They name each other, and themselves.
            (RoleName::cluster("top"), of("to-top", vec![], Some("to-top"))),
            (RoleName::cluster("middle"), of("to-top", vec![], Some("to-middle"))),
            (RoleName::cluster("leaf"), of("to-middle", vec![rule("get")], None)),
            (RoleName::cluster("filled"), of("x", vec![rule("list")], Some("to-middle"))),
            (
                RoleName { scope: Scope::Namespace("a".to_owned()), name: "namespaced".to_owned() },
                of("to-middle", vec![rule("watch")], None),
            ),
        ]);
        let verbs = |name: &str| {
            let rules = rules(&roles, &RoleName::cluster(name));
            rules.iter().map(|rule| rule.verbs[0].clone()).collect::<Vec<_>>()
        };
        assert_eq!(verbs("top"), ["get"]);
        assert_eq!(verbs("filled"), ["list"], "what the controller manager has filled in counts");
        assert_eq!(verbs("missing"), Vec::<String>::new());
        let leaf = BTreeSet::from([RoleName::cluster("leaf")]);
        assert_eq!(sources(&roles, &RoleName::cluster("filled")), leaf);
        assert_eq!(sources(&roles, &RoleName::cluster("leaf")), leaf);
    }
}
