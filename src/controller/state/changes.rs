//! Changes: what is wanted of nodes, what has to be tried, and what others read of it.

use std::{collections::HashSet, time::Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

use super::State;
use crate::{
    api::{self, StreamingNode},
    cluster::{Front, Moment, Plans, change_wish, read_attempt, whole_seconds},
    controller::{
        changes::{self, CLUSTER_CONFIGURATION, ChangesSettings, KUBEADM_CONFIG},
        metrics::{Effect, Kind},
        published::digest,
        write::{Body, Key, Write},
    },
    decision::{
        canary::sample,
        change::{Trial, Trials, Tried, Trouble},
        migration::STREAMING_REDIRECTS,
    },
    edit::{Edited, kubeadm},
    kubernetes::{events::EventRecord, feature_gates::Setting},
};

/// What is known and wanted of changes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub settings: ChangesSettings,
    pub plans: Plans,
    trials: Trials,
    /// Something has been planned since the process began.
    planned: bool,
    /// What is being tried.
    trying: Option<String>,
    kubeadm: Option<Kubeadm>,
    /// The digest of the flags that are published.
    flags: Option<u64>,
    /// Steps that have not been told yet.
    told: Vec<EventRecord>,
}

/// kubeadm's configuration as it is stored.
#[derive(Debug)]
struct Kubeadm {
    text: String,
    version: String,
    /// The URL of its controlPlaneEndpoint.
    front: Option<String>,
    /// What it says of the gate, or why that cannot be changed there.
    says: Result<Setting, String>,
}

impl Kubeadm {
    fn read(object: &ConfigMap) -> Option<Self> {
        let text = object.data.as_ref()?.get(CLUSTER_CONFIGURATION)?.clone();
        let version = object.metadata.resource_version.clone().unwrap_or_default();
        let gate = STREAMING_REDIRECTS.gate;
        let mut why = String::new();
        // It says that with which nothing would be changed.
        let says = [Setting::Default, Setting::Off, Setting::On].into_iter().find(|setting| {
            match kubeadm::set_gate(&text, gate, *setting) {
                Ok(edited) => edited == Edited::Unchanged,
                Err(error) => {
                    why = error.to_string();
                    false
                }
            }
        });
        let front = kubeadm::endpoint(&text);
        Some(Self { text, version, front, says: says.ok_or(why) })
    }
}

/// A trial that is due, with the nodes that it goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueTrial {
    /// What is tried.
    pub trial: Trial,
    /// The nodes.
    pub nodes: Vec<String>,
    /// The URL by which users reach the apiservers, through which they are tried, too.
    pub front: Option<String>,
}

#[cfg(test)]
impl Changes {
    pub fn trials(&self) -> &Trials {
        &self.trials
    }
}

impl State {
    /// From now on changes are made with these settings.
    pub fn with_changes(mut self, settings: ChangesSettings) -> Self {
        self.changes.settings = settings;
        self
    }

    /// Takes what a node's object says of its change; `true` if that is something new.
    pub(super) fn attempt(&mut self, name: &str, object: Option<&StreamingNode>) -> bool {
        let before = self.cluster.attempts().get(name).cloned();
        let changed = self.cluster.set_attempt(name, object.and_then(read_attempt));
        if let Some(after) = self.cluster.attempts().get(name)
            && self.listed.contains(&Kind::StreamingNode)
        {
            let told = changes::of_step(&self.cluster, name, before.as_ref(), after);
            self.changes.told.extend(told);
        }
        self.dirty_policies |= changed;
        changed
    }

    /// The steps that have not been told yet.
    pub fn told(&mut self) -> Vec<EventRecord> {
        std::mem::take(&mut self.changes.told)
    }

    /// Looks at what is to be changed now.
    pub(super) fn plan(&mut self, now: Timestamp) {
        let kubeadm = self.changes.kubeadm.as_ref();
        let config = kubeadm.and_then(|kubeadm| kubeadm.says.as_ref().ok().copied());
        // What another controller has proven is not tried again.
        if !std::mem::replace(&mut self.changes.planned, true) {
            self.changes.trials.extend(self.cluster.proven());
        }
        let mut plans = self.cluster.plans(&self.changes.trials, config, now);
        if let (Some(Err(why)), Some(told)) = (
            kubeadm.map(|kubeadm| kubeadm.says.as_ref()),
            plans.told.values_mut().find(|told| told.progressing.is_some()),
        ) {
            told.troubles.push(Trouble {
                reason: "KubeadmConfigUnreadable",
                message: format!(
                    "The ConfigMap {KUBEADM_CONFIG} cannot follow ({why}): edit it yourself, or \
                     the next kubeadm upgrade brings back what it says."
                ),
            });
        }
        let of = |node: &String, plans: &Plans| plans.changes.get(node).cloned();
        let old = &self.changes.plans;
        let nodes: HashSet<&String> = old.changes.keys().chain(plans.changes.keys()).collect();
        let dirty = nodes.into_iter().filter(|node| of(node, old) != of(node, &plans));
        self.dirty_nodes.extend(dirty.cloned());
        let ids = self.cluster.attempts().values().map(|a| a.wanted.id.clone());
        let asked: HashSet<String> = ids.chain(self.cluster.baselines()).collect();
        self.changes.trials.retain(|proves, _| asked.contains(proves));
        self.changes.plans = plans;
    }

    /// The change that a node's object has to hold.
    pub(super) fn change_of(
        &self,
        node: &str,
        stored: Option<&api::Change>,
    ) -> Option<api::Change> {
        let Some(wanted) = self.changes.plans.changes.get(node) else { return stored.cloned() };
        let wanted = wanted.as_ref()?;
        let attempt = self.cluster.attempts().get(node);
        if attempt.is_some_and(|attempt| attempt.wanted == *wanted) {
            return stored.cloned();
        }
        let policy = self.policies.get(&wanted.policy)?;
        Some(change_wish(wanted, &policy.version.to_string()))
    }

    /// What has to be tried now, unless something is being tried already.
    pub fn trial(&mut self, now: Timestamp) -> Option<DueTrial> {
        if self.changes.trying.is_some() {
            return None;
        }
        let (trial, policy) = self.changes.plans.trial.as_ref()?;
        let nodes = match &trial.nodes {
            Some(nodes) => nodes.clone(),
            None => {
                let (first, others, max) = self.cluster.trial_nodes(policy, now);
                sample(&first.into_iter().collect(), others.into_iter(), max)
            }
        };
        let front = match self.cluster.front(policy) {
            Front::Nothing => None,
            Front::At(url) => Some(url.clone()),
            Front::Kubeadm => self.changes.kubeadm.as_ref().and_then(|known| known.front.clone()),
        };
        let due = DueTrial { trial: trial.clone(), nodes, front };
        self.changes.trying = Some(due.trial.proves.clone());
        Some(due)
    }

    pub(super) fn tried(&mut self, proves: String, tried: Tried) {
        self.changes.trying = None;
        let at = whole_seconds(tried.at).0;
        self.changes.trials.insert(proves, Tried { at, ..tried });
        self.dirty_policies = true;
    }

    pub(super) fn kubeadm(&mut self, _: String, object: ConfigMap) -> Effect {
        let read = Kubeadm::read(&object);
        let text = |kubeadm: &Option<Kubeadm>| kubeadm.as_ref().map(|k| k.text.clone());
        let changed = text(&read) != text(&self.changes.kubeadm);
        self.changes.kubeadm = read;
        self.dirty_policies |= changed;
        if changed { Effect::Changed } else { Effect::Unchanged }
    }

    pub(super) fn kubeadm_gone(&mut self, _: &str) -> bool {
        let known = self.changes.kubeadm.take().is_some();
        self.dirty_policies |= known;
        known
    }

    /// The write that lets kubeadm's configuration follow, if one is due.
    pub(super) fn kubeadm_write(&self, instant: Instant) -> Option<Write> {
        let (setting, kubeadm) = (self.changes.plans.config?, self.changes.kubeadm.as_ref()?);
        if self.waits(&Key::Kubeadm, instant) {
            return None;
        }
        let edited = kubeadm::set_gate(&kubeadm.text, STREAMING_REDIRECTS.gate, setting).ok()?;
        let Edited::Changed(text) = edited else { return None };
        let body = Body::Kubeadm { text, version: kubeadm.version.clone() };
        Some(Write { key: Key::Kubeadm, body, records: Vec::new() })
    }

    pub(super) fn flags(&mut self, _: String, object: ConfigMap) -> Effect {
        let read = digest(&object.data.unwrap_or_default());
        let changed = self.changes.flags.replace(read) != Some(read);
        self.dirty_policies |= changed;
        if changed { Effect::Changed } else { Effect::Unchanged }
    }

    pub(super) fn flags_gone(&mut self, _: &str) -> bool {
        let known = self.changes.flags.take().is_some();
        self.dirty_policies |= known;
        known
    }

    /// The write that publishes the flags, if one is due.
    pub(super) fn flags_write(&self, moment: &Moment<'_>, instant: Instant) -> Option<Write> {
        let key = Key::Flags(self.changes.settings.flags.clone()?);
        if !self.listed.contains(&Kind::Flags) || self.waits(&key, instant) {
            return None;
        }
        let data = moment.flags();
        (self.changes.flags != Some(digest(&data))).then(|| Write {
            key,
            body: Body::Flags(json!(data)),
            records: Vec::new(),
        })
    }
}
