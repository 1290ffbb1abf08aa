//! Which roles lack `create`, and what to add to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    Rbac,
    finding::{Concern, Finding},
    role::{self, BindingName, RoleName, Scope},
    rule::{Names, Reach, Rule, Subresource, Verb, quoted},
    subject::Subject,
};

/// The group of roles and bindings.
const GROUP: &str = "rbac.authorization.k8s.io";

/// Where `create` is to be added.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remedy {
    /// To a role that somebody keeps.
    Add(RoleName),
    /// To nothing that is there: a role that Kubernetes or a controller writes gives `get`, so
    /// another has to be bound beside it.
    Bind {
        /// The role that gives `get`.
        beside: RoleName,
        /// The ClusterRole to make. Nothing has its name.
        make: String,
    },
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(role) => role.fmt(f),
            Self::Bind { make, .. } => write!(f, "a new ClusterRole {make}"),
        }
    }
}

/// What one role lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleChange {
    /// Where to add it.
    pub remedy: Remedy,
    /// The rules to add.
    pub rules: Vec<Rule>,
    /// The aggregated roles that give it on.
    pub aggregated: BTreeSet<RoleName>,
    /// The bindings that give `get`, and to whom.
    pub bindings: BTreeMap<BindingName, BTreeSet<Subject>>,
    /// What is missing.
    pub lacks: BTreeMap<Subresource, Names>,
    /// What to apply where a role has to be made; empty otherwise.
    pub manifest: String,
}

/// The changes after which no finding blocks, by role.
pub fn changes(rbac: &Rbac, findings: &[Finding]) -> Vec<RoleChange> {
    #[derive(Default)]
    struct Lack {
        aggregated: BTreeSet<RoleName>,
        bindings: BTreeMap<BindingName, BTreeSet<Subject>>,
        lacks: BTreeMap<Subresource, Names>,
    }
    let mut all: BTreeMap<Remedy, Lack> = BTreeMap::new();
    for finding in findings.iter().filter(|finding| finding.concern == Concern::Blocks) {
        for (subresource, names) in &finding.lacks {
            for (remedy, names) in remedies(rbac, &finding.role, *subresource, names) {
                let aggregated = matches!(&remedy, Remedy::Add(role) if *role != finding.role);
                let lack = all.entry(remedy).or_default();
                lack.aggregated.extend(aggregated.then(|| finding.role.clone()));
                let subjects = lack.bindings.entry(finding.binding.clone()).or_default();
                subjects.insert(finding.subject.clone());
                let names = match lack.lacks.remove(subresource) {
                    Some(known) => known.and(&names),
                    None => names,
                };
                lack.lacks.insert(*subresource, names);
            }
        }
    }
    let change = |(remedy, Lack { aggregated, bindings, lacks })| {
        let rules = rules(&lacks);
        let manifest = match &remedy {
            Remedy::Add(_) => String::new(),
            Remedy::Bind { make, .. } => manifest(rbac, make, &rules, &bindings),
        };
        RoleChange { remedy, rules, aggregated, bindings, lacks, manifest }
    };
    all.into_iter().map(change).collect()
}

/// Where a role's `create` has to be added, and for which pods.
///
/// What is written into an aggregated role is overwritten, so it goes to each role in which a rule
/// stands that gives `get`, and for no more pods than that rule: others have that role, too.
fn remedies(
    rbac: &Rbac,
    role: &RoleName,
    subresource: Subresource,
    lacks: &Names,
) -> Vec<(Remedy, Names)> {
    let mut remedies = Vec::new();
    let mut left = Some(lacks.clone());
    for source in role::sources(&rbac.roles, role) {
        let Some(of) = rbac.roles.get(&source).filter(|of| !role::is_built_in(&source, of)) else {
            continue;
        };
        let named = |rule: &&Rule| rule.gives(Verb::Get, subresource) == Some(Reach::Named);
        let gives = of.rules.iter().filter(named).map(Rule::names);
        let Some(gives) = gives.reduce(|all, more| all.and(&more)) else { continue };
        let Some((here, elsewhere)) = left.as_ref().and_then(|left| left.split(&gives)) else {
            continue;
        };
        remedies.push((Remedy::Add(source), here));
        left = elsewhere;
    }
    remedies.extend(left.map(|left| {
        let taken = |name: &str| rbac.roles.contains_key(&RoleName::cluster(name));
        // Roles of one name in two namespaces are two roles.
        let own = match role.scope.namespace() {
            Some(namespace) => format!("{namespace}:{}", role.name),
            None => role.name.clone(),
        };
        let make = free(&base(&own), taken);
        (Remedy::Bind { beside: role.clone(), make }, left)
    }));
    remedies
}

/// A name for what is made beside something of this name.
fn base(name: &str) -> String {
    format!("streams:{name}")
}

/// The first name of this kind that is free.
fn free(base: &str, taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2..).map(|number: u32| format!("{base}-{number}"));
    let mut names = std::iter::once(base.to_owned()).chain(numbered);
    names.find(|name| !taken(name)).unwrap_or_default()
}

fn rules(lacks: &BTreeMap<Subresource, Names>) -> Vec<Rule> {
    let mut alike: BTreeMap<&Names, Vec<Subresource>> = BTreeMap::new();
    for (subresource, names) in lacks {
        alike.entry(names).or_default().push(*subresource);
    }
    alike.into_iter().map(|(names, subresources)| Rule::create(subresources, names)).collect()
}

/// A role with these rules, bound to the same subjects in the same places.
fn manifest(
    rbac: &Rbac,
    make: &str,
    rules: &[Rule],
    bindings: &BTreeMap<BindingName, BTreeSet<Subject>>,
) -> String {
    let metadata = |scope: &Scope, name: &str| {
        let name = quoted(name);
        match scope.namespace() {
            Some(namespace) => {
                format!("metadata: {{namespace: {}, name: {name}}}\n", quoted(namespace))
            }
            None => format!("metadata: {{name: {name}}}\n"),
        }
    };
    let head = |kind: &str| format!("apiVersion: {GROUP}/v1\nkind: {kind}\n");
    let mut text = head("ClusterRole") + &metadata(&Scope::Cluster, make) + "rules:\n";
    for rule in rules {
        text.push_str(&format!("{rule}\n"));
    }
    for (binding, subjects) in bindings {
        let taken = |name: &str| {
            let scope = binding.scope.clone();
            rbac.bindings.contains_key(&BindingName { scope, name: name.to_owned() })
        };
        let name = free(&base(&binding.name), taken);
        text.push_str("---\n");
        text.push_str(&head(binding.kind().as_str()));
        text.push_str(&metadata(&binding.scope, &name));
        let role = quoted(make);
        text.push_str(&format!(
            "roleRef: {{apiGroup: {GROUP}, kind: ClusterRole, name: {role}}}\nsubjects:\n"
        ));
        for subject in subjects {
            let place = match subject.namespace() {
                Some(namespace) => format!("namespace: {}", quoted(namespace)),
                None => format!("apiGroup: {GROUP}"),
            };
            let (kind, name) = (subject.kind(), quoted(subject.name()));
            text.push_str(&format!("- {{kind: {kind}, {place}, name: {name}}}\n"));
        }
    }
    text
}
