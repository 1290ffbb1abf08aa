//! Who may open streams by WebSocket today, and no longer once `create` is asked for.
//!
//! A WebSocket begins with a GET, so up to 1.34 the right to `get` pods/exec, pods/attach or
//! pods/portforward is enough for it. From 1.35 on ([`create_asked`]) the apiserver asks for `create`
//! as well, as it always did for SPDY: a subject that has `get` only loses its streams, and kubectl's
//! fallback to SPDY does not help it.
//!
//! [`rule`], [`subject`] and [`role`] say what RBAC gives, as the apiserver's authorizer reads it;
//! [`finding`] compares `get` with `create`, [`part`] tells whether all was given, [`change`] says which role lacks what, and [`steps`] what
//! to do.

pub mod change;
pub mod finding;
pub mod part;
pub mod role;
pub mod rule;
pub mod steps;
pub mod subject;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    decision::{apiserver::Apiserver, names::NameSummary, websockets::gates::StreamGate},
    kubernetes::version::Minor,
};
use change::RoleChange;
use finding::{Concern, Finding};
use role::{Binding, BindingName, Kind, RoleName, Roles, Scope};
use rule::{Names, Subresource};
use subject::Subject;

/// The first apiserver minor that asks for `create` before it upgrades to a WebSocket.
pub fn create_asked() -> Minor {
    GATE.first()
}

/// The apiserver's gate for that.
const GATE: StreamGate = StreamGate::AuthorizeCreate;

/// Why an upgrade is not safe after which somebody's streams are refused, or may be.
pub const UNSAFE: &str = "RightsUnsafe";

/// The kubectl command that prints what is judged here.
pub const DUMP: &str = "kubectl get roles,clusterroles,rolebindings,clusterrolebindings -A -o yaml";

/// What is known of a cluster's RBAC.
#[derive(Clone, Debug, Default)]
pub struct Rbac {
    /// The roles.
    pub roles: Roles,
    /// The bindings.
    pub bindings: BTreeMap<BindingName, Binding>,
    /// The kinds that were read.
    pub read: BTreeSet<Kind>,
    /// Why others could not be.
    pub refused: BTreeMap<Kind, String>,
    /// All of each kind that was read is here: what is not here does not exist.
    pub whole: bool,
    /// Rights to `create` that RBAC does not show and the apiserver confirms.
    pub confirmed: Vec<Confirmed>,
}

/// A right to `create` that another authorizer gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// Who has it.
    pub subject: Subject,
    /// On what.
    pub subresource: Subresource,
    /// Where.
    pub scope: Scope,
    /// On which pods.
    pub names: Names,
}

impl Rbac {
    /// Whether nobody has looked for RBAC at all.
    pub fn is_untouched(&self) -> bool {
        self.read.is_empty() && self.refused.is_empty()
    }

    /// The kinds that were not read.
    pub fn unread(&self) -> BTreeSet<Kind> {
        Kind::ALL.into_iter().filter(|kind| !self.read.contains(kind)).collect()
    }

    /// The roles that are bound and not here, though others of their kind are, with the bindings.
    fn missing(&self) -> BTreeMap<RoleName, BTreeSet<BindingName>> {
        let mut missing: BTreeMap<RoleName, BTreeSet<BindingName>> = BTreeMap::new();
        for (name, binding) in &self.bindings {
            let role = &binding.role;
            if self.read.contains(&role.kind()) && !self.roles.contains_key(role) {
                missing.entry(role.clone()).or_default().insert(name.clone());
            }
        }
        missing
    }
}

/// What is asked about a cluster's rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The apiservers' version.
    pub minor: Minor,
    /// Some of them ask for `create` already.
    pub today: bool,
    /// None of them will ask at that version, as its gate is off.
    pub gate_off: bool,
}

impl Question {
    /// The question for an upgrade to `target`, or for the apiservers as they are; `None` where
    /// `create` is not asked for.
    pub fn of(target: Option<Minor>, instances: &[Apiserver]) -> Option<Self> {
        let newest = instances.iter().filter_map(|instance| instance.minor).max();
        let minor = target.or(newest).filter(|minor| *minor >= create_asked())?;
        let off = |i: &Apiserver, minor| GATE.is_on(minor, i.gates.as_ref()) == Some(false);
        let there = |i: &Apiserver| i.minor.is_some_and(|minor| minor >= create_asked());
        Some(Self {
            minor,
            today: instances.iter().any(|i| there(i) && !off(i, i.minor)),
            gate_off: !instances.is_empty() && instances.iter().all(|i| off(i, Some(minor))),
        })
    }
}

/// What the rights come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RightsReason {
    /// Subjects that were given streams lose them.
    GetWithoutCreate,
    /// Not all of RBAC was read.
    RightsUnknown,
    /// One of these two, and the gate keeps it from mattering.
    CreateGateOff,
    /// Only subjects lose streams that have them by a wildcard.
    ReadOnlyStreams,
    /// Everybody who may `get` may `create`.
    CreateIsThere,
}

impl RightsReason {
    /// Every reason, worst first.
    pub const ALL: [Self; 5] = [
        Self::GetWithoutCreate,
        Self::RightsUnknown,
        Self::CreateGateOff,
        Self::ReadOnlyStreams,
        Self::CreateIsThere,
    ];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GetWithoutCreate => "GetWithoutCreate",
            Self::RightsUnknown => "RightsUnknown",
            Self::CreateGateOff => "CreateGateOff",
            Self::ReadOnlyStreams => "ReadOnlyStreams",
            Self::CreateIsThere => "CreateIsThere",
        }
    }

    /// Whether an upgrade has to wait.
    pub fn refuses(self) -> bool {
        matches!(self, Self::GetWithoutCreate | Self::RightsUnknown)
    }
}

/// What becomes of everybody's streams.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was asked.
    pub question: Question,
    /// Who loses what, those that block first.
    pub findings: Vec<Finding>,
    /// The roles that lack `create`.
    pub changes: Vec<RoleChange>,
    /// Roles that are bound and are not there.
    pub missing: BTreeMap<RoleName, BTreeSet<BindingName>>,
    /// The kinds that were not read, and why, where that is known.
    pub unread: BTreeMap<Kind, Option<String>>,
    /// The kinds of which there are more than were given.
    pub parts: BTreeSet<Kind>,
    /// Whether what is not there does not exist.
    pub whole: bool,
    /// What it comes to.
    pub reason: RightsReason,
}

impl Report {
    /// Judges what is known. `all_read` is whether nothing was given that could not be read.
    pub fn of(rbac: &Rbac, question: Question, all_read: bool) -> Self {
        let mut findings = finding::findings(rbac);
        findings.sort_by(|a, b| (a.concern, a).cmp(&(b.concern, b)));
        let changes = change::changes(rbac, &findings);
        let missing = rbac.missing();
        let unread: BTreeMap<Kind, Option<String>> = rbac
            .unread()
            .into_iter()
            .map(|kind| (kind, rbac.refused.get(&kind).cloned()))
            .collect();
        let has = |concern| findings.iter().any(|finding| finding.concern == concern);
        let parts = part::parts(rbac);
        let unknown = !unread.is_empty()
            || !parts.is_empty()
            || !all_read
            || (!missing.is_empty() && !rbac.whole);
        let reason = if question.gate_off && (has(Concern::Blocks) || unknown) {
            RightsReason::CreateGateOff
        } else if has(Concern::Blocks) {
            RightsReason::GetWithoutCreate
        } else if unknown {
            RightsReason::RightsUnknown
        } else if has(Concern::Warns) {
            RightsReason::ReadOnlyStreams
        } else {
            RightsReason::CreateIsThere
        };
        Self { question, findings, changes, missing, unread, parts, whole: rbac.whole, reason }
    }

    /// Whether somebody's streams are refused already, upgrade or not.
    pub fn refuses_today(&self) -> bool {
        self.question.today && self.reason == RightsReason::GetWithoutCreate
    }

    /// What could not be judged, and what to do about it, a sentence each.
    pub fn gaps(&self) -> Vec<String> {
        let (mut gaps, asked) = (Vec::new(), create_asked());
        if !self.unread.is_empty() {
            let kinds: Vec<&str> = self.unread.keys().map(|kind| kind.resource()).collect();
            let why: BTreeSet<&str> = self.unread.values().flatten().map(String::as_str).collect();
            gaps.push(if why.is_empty() {
                format!(
                    "No {} were given, so whose streams end at {asked} is not known: add what {DUMP} \
                     prints.",
                    or(&kinds)
                )
            } else {
                // The others are alike, and what they are about has been said.
                let why = why.first().copied().unwrap_or_default();
                format!(
                    "The {} cannot be read, so whose streams end at {asked} is not known ({why}). Have \
                     the right to list them in all namespaces.",
                    and(&kinds),
                )
            });
        }
        let mut parts: BTreeMap<&[&str], Vec<&str>> = BTreeMap::new();
        for kind in &self.parts {
            parts.entry(part::everywhere(*kind)).or_default().push(kind.resource());
        }
        for (everywhere, kinds) in parts {
            gaps.push(format!(
                "Not all {} were given, as those of {}, which every cluster has, are not all there: whose \
                 streams end at {asked} is not known. Give what {DUMP} prints.",
                and(&kinds),
                and(everywhere),
            ));
        }
        if !self.missing.is_empty() && !self.whole {
            let bound = self.bound_and_missing();
            gaps.push(format!(
                "{bound} not among what was given: what that gives is not known. Add it, or delete \
                 the binding if it does not exist."
            ));
        }
        gaps
    }

    /// The roles that are bound and missing, up to the verb.
    fn bound_and_missing(&self) -> String {
        let roles: Vec<String> = self.missing.keys().map(ToString::to_string).collect();
        let bound: Vec<String> = self.missing.values().flatten().map(ToString::to_string).collect();
        let named = |names: &[String]| {
            names.iter().map(String::as_str).collect::<NameSummary<'_>>().to_string()
        };
        let is = if roles.len() == 1 { "is" } else { "are" };
        format!("{} {is} bound by {} and {is}", named(&roles), named(&bound))
    }

    /// What it comes to, in words. Never empty.
    pub fn message(&self) -> String {
        let minor = self.question.minor;
        let subjects = |concern| {
            let found = self.findings.iter().filter(move |finding| finding.concern == concern);
            let names: BTreeSet<String> = found.map(|f| f.subject.to_string()).collect();
            names
        };
        let (blocked, warned) = (subjects(Concern::Blocks), subjects(Concern::Warns));
        let summary = |names: &BTreeSet<String>| {
            names.iter().map(String::as_str).collect::<NameSummary<'_>>().to_string()
        };
        let mut words = Vec::new();
        if !blocked.is_empty() {
            let when = match (self.question.gate_off, self.question.today) {
                (true, _) => {
                    format!("these streams are refused as soon as {} is on", GATE.as_str())
                }
                (false, true) => "the apiserver refuses these streams today".to_owned(),
                (false, false) => {
                    format!("at {minor} these streams are refused")
                }
            };
            words.push(format!(
                "{} may get and not create what they stream by: {when}. Add create to {}.",
                summary(&blocked),
                match self.changes.as_slice() {
                    [one] => one.remedy.to_string(),
                    many => format!("the {} roles named", many.len()),
                }
            ));
        }
        if !warned.is_empty() {
            words.push(format!(
                "{} may stream by a rule that gives get on everything, probably by accident, and \
                 may not create: {}. Add create only where streams are wanted.",
                summary(&warned),
                if self.question.today { "that has ended" } else { "that ends" },
            ));
        }
        let gaps = self.gaps();
        if words.is_empty() && gaps.is_empty() {
            words.push(match self.reason {
                RightsReason::RightsUnknown => "Some of the input could not be read.".to_owned(),
                _ => "Whoever may open a stream by get may create it, too.".to_owned(),
            });
        }
        words.extend(gaps);
        if !self.missing.is_empty() && self.whole {
            words
                .push(format!("{} not there: nobody has a right by it.", self.bound_and_missing()));
        }
        words.join(" ")
    }
}

/// A list in words.
fn and(words: &[&str]) -> String {
    joined(words, "and")
}

fn or(words: &[&str]) -> String {
    joined(words, "or")
}

fn joined(words: &[&str], last: &str) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., end] => format!("{} {last} {end}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests;
