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
    let mut names = FreeNames {
        roles: rbac.roles.keys().cloned().collect(),
        bindings: rbac.bindings.keys().cloned().collect(),
    };
    let change = |(mut remedy, Lack { aggregated, bindings, lacks })| {
        let rules = rules(&lacks);
        let manifest = match &mut remedy {
            Remedy::Add(_) => String::new(),
            Remedy::Bind { make, .. } => {
                *make = names.role(make);
                manifest(&mut names, make, &rules, &bindings)
            }
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
        // Roles of one name in two namespaces are two roles.
        let own = match role.scope.namespace() {
            Some(namespace) => format!("{namespace}:{}", role.name),
            None => role.name.clone(),
        };
        (Remedy::Bind { beside: role.clone(), make: base(&own) }, left)
    }));
    remedies
}

/// A name for what is made beside something of this name.
fn base(name: &str) -> String {
    format!("streams:{name}")
}

/// The names that are taken: by what is there, and by what has been made before.
struct FreeNames {
    roles: BTreeSet<RoleName>,
    bindings: BTreeSet<BindingName>,
}

impl FreeNames {
    /// Takes a name like this one for a ClusterRole.
    fn role(&mut self, base: &str) -> String {
        let name = free(base, |name| self.roles.contains(&RoleName::cluster(name)));
        self.roles.insert(RoleName::cluster(name.clone()));
        name
    }

    /// Takes one for a binding beside this one.
    fn binding(&mut self, beside: &BindingName) -> BindingName {
        let named = |name: &str| BindingName { scope: beside.scope.clone(), name: name.to_owned() };
        let name = named(&free(&base(&beside.name), |name| self.bindings.contains(&named(name))));
        self.bindings.insert(name.clone());
        name
    }
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
    names: &mut FreeNames,
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
        let made = names.binding(binding);
        text.push_str("---\n");
        text.push_str(&head(made.kind().as_str()));
        text.push_str(&metadata(&made.scope, &made.name));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::websockets::rights::{
        finding,
        role::{Binding, Role},
    };

    #[test]
    fn what_is_made_has_a_name_of_its_own() {
        // However the names are written together, and whatever number is put behind one.
        let mut rbac = Rbac::default();
        let mut insert = |scope: &Scope, name: &str, verbs: &[&str]| {
            let rule = Rule {
                api_groups: vec![String::new()],
                resources: vec!["pods/exec".to_owned()],
                resource_names: Vec::new(),
                verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
            };
            let role = RoleName { scope: scope.clone(), name: name.to_owned() };
            let content = Role { rules: vec![rule], reconciled: true, ..Role::default() };
            rbac.roles.insert(role.clone(), content);
            let name = BindingName { scope: scope.clone(), name: name.to_owned() };
            let subjects = vec![Subject::user(&format!("user of {role}"))];
            rbac.bindings.insert(name, Binding { role, subjects });
        };
        insert(&Scope::Cluster, "streams:c", &[]);
        insert(&Scope::Namespace("a".to_owned()), "b", &["get"]);
        for name in ["a:b", "c", "c-2"] {
            insert(&Scope::Cluster, name, &["get"]);
        }
        let changes = changes(&rbac, &finding::findings(&rbac));
        let made: Vec<_> = changes.iter().map(|change| change.remedy.to_string()).collect();
        let expected = ["a:b", "c-2", "c-2-2", "a:b-2"].map(|name| format!("streams:{name}"));
        assert_eq!(made, expected.clone().map(|name| format!("a new ClusterRole {name}")));
        for (change, name) in changes.iter().zip(expected) {
            let text = &change.manifest;
            for part in [
                format!("kind: ClusterRole\nmetadata: {{name: \"{name}\"}}\n"),
                format!("kind: ClusterRole, name: \"{name}\"}}"),
            ] {
                assert_eq!(text.matches(&part).count(), 1, "{part}: {text}");
            }
        }
        let documents = changes.iter().flat_map(|change| change.manifest.split("---\n"));
        let heads: Vec<&str> = documents.flat_map(|text| text.split("roleRef").next()).collect();
        let once: BTreeSet<&str> = heads.iter().copied().collect();
        assert_eq!((heads.len(), once.len()), (8, 8), "{heads:#?}");
    }
}
