//! Who has `get` without `create`.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Rbac,
    role::{self, BindingName, RoleName, Scope},
    rule::{Names, Reach, Rule, Subresource, Verb},
    subject::Subject,
};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Concern {
    /// A rule names the subresources: streams were wanted, and end.
    Blocks,
    /// A rule gives `get` on everything: streams end that perhaps nobody knew of.
    Warns,
}

impl Concern {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blocks => "Blocks",
            Self::Warns => "Warns",
        }
    }

    fn of(reach: Reach) -> Self {
        match reach {
            Reach::Named => Self::Blocks,
            Reach::Wildcard => Self::Warns,
        }
    }
}

/// A subject that has `get` by a binding, and `create` by none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Who.
    pub subject: Subject,
    /// The binding that gives `get`. It holds in its scope.
    pub binding: BindingName,
    /// The role that it gives.
    pub role: RoleName,
    /// How bad it is.
    pub concern: Concern,
    /// The pods on which `create` is missing, for each subresource. Never empty.
    pub lacks: BTreeMap<Subresource, Names>,
}

/// What a role gives of one subresource.
#[derive(Debug, Default)]
struct Given {
    get: Vec<(Reach, Names)>,
    create: Vec<Names>,
}

/// What a role gives of streams.
type GivenByRole = BTreeMap<Subresource, Given>;

/// What one binding gives a subject.
struct Held<'a> {
    binding: &'a BindingName,
    role: &'a RoleName,
    given: &'a GivenByRole,
}

/// Every subject that lacks `create` where a binding of its own gives it `get`.
///
/// What a subject has through a group counts as its own `create`. A `get` through a group is the
/// group's finding, and is not said again of its members.
pub fn findings(rbac: &Rbac) -> Vec<Finding> {
    let given: BTreeMap<&RoleName, GivenByRole> = rbac
        .roles
        .iter()
        .map(|(name, role)| {
            // Kubernetes' own controllers read everything, and stream nothing.
            let controllers = role.reconciled && role::is_system(name);
            (name, given(&role::rules(&rbac.roles, name), controllers))
        })
        .filter(|(_, given)| !given.is_empty())
        .collect();
    let mut held: BTreeMap<&Subject, Vec<Held<'_>>> = BTreeMap::new();
    for (binding, content) in &rbac.bindings {
        let Some((role, given)) = given.get_key_value(&content.role) else { continue };
        for subject in content.subjects.iter().collect::<BTreeSet<_>>() {
            held.entry(subject).or_default().push(Held { binding, role, given });
        }
    }
    let judged = held.iter().filter(|(subject, _)| subject.is_judged());
    judged.flat_map(|(subject, own)| of_subject(subject, own, &held, rbac)).collect()
}

/// What these rules give; what they say by a wildcard only where it is no controller's.
fn given(rules: &[&Rule], controllers: bool) -> GivenByRole {
    let mut all = GivenByRole::new();
    for rule in rules {
        for subresource in Subresource::ALL {
            let get = rule.gives(Verb::Get, subresource);
            let get = get.filter(|reach| *reach == Reach::Named || !controllers);
            let create = rule.gives(Verb::Create, subresource).is_some();
            if get.is_none() && !create {
                continue;
            }
            let given = all.entry(subresource).or_default();
            given.get.extend(get.map(|reach| (reach, rule.names())));
            given.create.extend(create.then(|| rule.names()));
        }
    }
    all
}

fn of_subject(
    subject: &Subject,
    own: &[Held<'_>],
    held: &BTreeMap<&Subject, Vec<Held<'_>>>,
    rbac: &Rbac,
) -> Vec<Finding> {
    let groups: Vec<Subject> = subject.groups().into_iter().map(Subject::Group).collect();
    let through = groups.iter().filter_map(|group| held.get(group)).flatten();
    let mut creates: BTreeMap<Subresource, Vec<(&Scope, &Names)>> = BTreeMap::new();
    for one in own.iter().chain(through) {
        for (subresource, given) in one.given {
            let there = given.create.iter().map(|names| (&one.binding.scope, names));
            creates.entry(*subresource).or_default().extend(there);
        }
    }
    for confirmed in rbac.confirmed.iter().filter(|confirmed| confirmed.subject == *subject) {
        let there = (&confirmed.scope, &confirmed.names);
        creates.entry(confirmed.subresource).or_default().push(there);
    }
    let mut findings = Vec::new();
    for one in own {
        let mut lacks: BTreeMap<Concern, BTreeMap<Subresource, Names>> = BTreeMap::new();
        for (subresource, given) in one.given {
            let creates = creates.get(subresource).map_or(&[][..], Vec::as_slice);
            for (reach, names) in &given.get {
                let Some(names) = lacking(&one.binding.scope, names, creates) else { continue };
                let of = lacks.entry(Concern::of(*reach)).or_default();
                let names = match of.remove(subresource) {
                    Some(known) => known.and(&names),
                    None => names,
                };
                of.insert(*subresource, names);
            }
        }
        // What a rule names is not said a second time because another gives everything.
        let named = lacks.get(&Concern::Blocks).cloned().unwrap_or_default();
        if let Some(by_wildcard) = lacks.get_mut(&Concern::Warns) {
            by_wildcard.retain(|subresource, names| match named.get(subresource) {
                Some(Names::All) => false,
                Some(known) => known != names,
                None => true,
            });
        }
        for (concern, lacks) in lacks.into_iter().filter(|(_, lacks)| !lacks.is_empty()) {
            let (binding, role) = (one.binding.clone(), one.role.clone());
            findings.push(Finding { subject: subject.clone(), binding, role, concern, lacks });
        }
    }
    findings
}

/// The pods of these names, in this scope, that no `create` covers. A right in some namespaces heals
/// none that holds in all: others are there, or come.
fn lacking(scope: &Scope, names: &Names, creates: &[(&Scope, &Names)]) -> Option<Names> {
    let mut covered = BTreeSet::new();
    for (_, create) in creates.iter().filter(|(held, _)| held.covers(scope)) {
        match create {
            Names::All => return None,
            Names::Only(names) => covered.extend(names),
        }
    }
    match names {
        Names::All => Some(Names::All),
        Names::Only(names) => {
            let left: BTreeSet<String> =
                names.iter().filter(|name| !covered.contains(name)).cloned().collect();
            (!left.is_empty()).then_some(Names::Only(left))
        }
    }
}
