//! The state of the controller: what the watches said, what is stored of our own objects, and what
//! has to be looked at again. No I/O and no clock: the engine feeds it and carries out its writes.

mod agents;
mod changes;
mod due;

use std::collections::{BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{ConfigMap, Endpoints, Pod},
};
use kube::{Resource, ResourceExt, core::DeserializeGuard, runtime::watcher::Event};

use agents::Agents;
use changes::Changes;
use due::Retry;

pub use changes::DueTrial;

use super::{
    changes::KUBEADM_CONFIG,
    metrics::{Effect, Kind},
    published::{Published, PublishedPolicy, version},
    write::Key,
};
use crate::{
    api::{StreamingNode, StreamingPolicy},
    cluster::{
        AgentChange, ApiserverPod, Cluster, Content, NodeView, Policy, Summary, endpoint_addresses,
    },
    decision::change::Tried,
    kubernetes::version::Minor,
};

/// What a watch or a poll said.
#[derive(Debug)]
pub enum WatchEvent {
    /// A Node.
    Node(Event<NodeView>),
    /// A StreamingPolicy.
    Policy(Event<DeserializeGuard<StreamingPolicy>>),
    /// A StreamingNode.
    StreamingNode(Event<DeserializeGuard<StreamingNode>>),
    /// A pod that may be an apiserver's.
    Pod(Box<Event<Pod>>),
    /// The endpoints of the `kubernetes` Service.
    Endpoints(Event<Endpoints>),
    /// The DaemonSet of the agents.
    DaemonSet(Box<Event<DaemonSet>>),
    /// A pod that may be an agent's.
    AgentPod(Box<Event<Pod>>),
    /// kubeadm's configuration.
    KubeadmConfig(Box<Event<ConfigMap>>),
    /// The flags that we publish.
    Flags(Box<Event<ConfigMap>>),
    /// What came of a trial, by what it was to prove.
    Tried(String, Tried),
    /// The version that an apiserver reports of itself.
    Served(Option<Minor>),
    /// A kind can no longer be watched (`true`), or can again.
    Lost(Kind, bool),
}

/// The state of the controller.
#[derive(Debug, Default)]
pub struct State {
    cluster: Cluster,
    published: HashMap<String, Published>,
    policies: HashMap<String, PublishedPolicy>,
    /// Names seen in the list that is under way, per kind; what was known and is not in it is gone.
    listing: HashMap<Kind, HashSet<String>>,
    listed: HashSet<Kind>,
    lost: BTreeSet<Kind>,
    dirty_nodes: BTreeSet<String>,
    dirty_policies: bool,
    /// Everything that nodes are judged against has changed.
    dirty_scene: bool,
    /// The agents that are rolled out; `None` in a controller that rolls out none.
    agents: Option<Agents>,
    dirty_agents: bool,
    changes: Changes,
    /// The apiserver has been asked for its version.
    served_told: bool,
    /// The cluster as it was judged last, until somebody has asked for that.
    summary: Option<Summary>,
    in_flight: HashSet<Key>,
    retries: HashMap<Key, Retry>,
    next_change: Option<Timestamp>,
}

impl State {
    /// The kinds that have been listed in full, or given up on for now, or that nobody watches.
    pub fn synced(&self, kind: Kind) -> bool {
        self.listed.contains(&kind) || self.lost.contains(&kind) || !self.watches(kind)
    }

    /// The cluster in a few numbers, if it has been judged since this was asked last.
    pub fn judged(&mut self) -> Option<Summary> {
        self.summary.take()
    }

    fn all_synced(&self) -> bool {
        Kind::ALL.into_iter().all(|kind| self.synced(kind))
    }

    /// Whether a turn has something to look at.
    pub fn is_dirty(&self) -> bool {
        self.dirty_policies || self.dirty_scene || self.dirty_agents || !self.dirty_nodes.is_empty()
    }

    /// Takes what a watch said; tells the kind and what it did, for the metrics.
    pub fn apply(&mut self, change: WatchEvent) -> Option<(Kind, Effect)> {
        match change {
            WatchEvent::Node(event) => {
                self.listed_event(Kind::Node, event, Self::node, Self::node_gone)
            }
            WatchEvent::Policy(event) => {
                self.listed_event(Kind::StreamingPolicy, event, Self::policy, Self::policy_gone)
            }
            WatchEvent::StreamingNode(event) => self.listed_event(
                Kind::StreamingNode,
                event,
                Self::streaming_node,
                Self::streaming_node_gone,
            ),
            WatchEvent::Pod(event) => {
                self.listed_event(Kind::Pod, *event, Self::pod, Self::pod_gone)
            }
            WatchEvent::Endpoints(event) => {
                self.listed_event(Kind::Endpoints, event, Self::endpoints, Self::endpoints_gone)
            }
            WatchEvent::DaemonSet(event) => {
                self.listed_event(Kind::DaemonSet, *event, Self::daemon_set, Self::daemon_set_gone)
            }
            WatchEvent::AgentPod(event) => {
                self.listed_event(Kind::AgentPod, *event, Self::agent_pod, Self::agent_pod_gone)
            }
            WatchEvent::KubeadmConfig(event) => {
                self.listed_event(Kind::KubeadmConfig, *event, Self::kubeadm, Self::kubeadm_gone)
            }
            WatchEvent::Flags(event) => {
                self.listed_event(Kind::Flags, *event, Self::flags, Self::flags_gone)
            }
            WatchEvent::Tried(proves, tried) => {
                self.tried(proves, tried);
                None
            }
            WatchEvent::Served(minor) => {
                let told = std::mem::replace(&mut self.served_told, true);
                self.dirty_agents |= !told || self.cluster.served() != minor;
                let changed = self.cluster.set_served(minor);
                self.scene_changed(changed);
                None
            }
            WatchEvent::Lost(kind, lost) => {
                if lost {
                    self.lost.insert(kind)
                } else {
                    self.lost.remove(&kind)
                };
                let changed = self.cluster.set_lost(self.lost.first().map(|kind| kind.as_str()));
                self.dirty_policies |= changed;
                None
            }
        }
    }

    /// One event of a list-and-watch: `set` takes an object, `gone` forgets one by name.
    fn listed_event<K: Resource<DynamicType = ()>>(
        &mut self,
        kind: Kind,
        event: Event<K>,
        set: fn(&mut Self, String, K) -> Effect,
        gone: fn(&mut Self, &str) -> bool,
    ) -> Option<(Kind, Effect)> {
        let effect = match event {
            Event::Init => {
                self.listing.insert(kind, HashSet::new());
                return None;
            }
            Event::InitApply(object) => {
                let name = object.name_any();
                if let Some(seen) = self.listing.get_mut(&kind) {
                    seen.insert(name.clone());
                }
                set(self, name, object)
            }
            Event::InitDone => {
                let seen = self.listing.remove(&kind).unwrap_or_default();
                for name in self.known(kind).filter(|n| !seen.contains(n)).collect::<Vec<_>>() {
                    gone(self, &name);
                }
                if self.listed.insert(kind) {
                    self.dirty_policies = true;
                    self.dirty_scene = true;
                    self.dirty_agents = true;
                }
                return None;
            }
            Event::Apply(object) => set(self, object.name_any(), object),
            Event::Delete(object) => match gone(self, &object.name_any()) {
                true => Effect::Changed,
                false => Effect::Unchanged,
            },
        };
        Some((kind, effect))
    }

    fn known(&self, kind: Kind) -> Box<dyn Iterator<Item = String> + '_> {
        match kind {
            Kind::Node => Box::new(self.cluster.nodes().keys().cloned()),
            Kind::StreamingPolicy => Box::new(self.cluster.policies().keys().cloned()),
            Kind::StreamingNode => Box::new(self.published.keys().cloned()),
            Kind::Pod => Box::new(self.cluster.pods().cloned()),
            Kind::Endpoints => Box::new(std::iter::once(String::new())),
            // One object each, by its name.
            Kind::KubeadmConfig => Box::new(std::iter::once(KUBEADM_CONFIG.to_owned())),
            Kind::Flags => {
                let name = self.changes.settings.flags.as_ref().map(|flags| flags.name.clone());
                Box::new(name.into_iter())
            }
            Kind::AgentPod => {
                Box::new(self.agents.iter().flat_map(|agents| agents.pods.keys().cloned()))
            }
            Kind::DaemonSet => {
                let stored = self.agents.as_ref().and_then(|agents| agents.name());
                Box::new(stored.into_iter().map(str::to_owned))
            }
        }
    }

    fn node(&mut self, name: String, view: NodeView) -> Effect {
        if !self.cluster.set_node(view) {
            return Effect::Unchanged;
        }
        self.dirty_nodes.insert(name);
        self.dirty_policies = true;
        Effect::Changed
    }

    fn node_gone(&mut self, name: &str) -> bool {
        // Its StreamingNode is owned by it, and goes with it.
        let known = self.cluster.remove_node(name);
        self.dirty_policies |= known;
        known
    }

    fn policy(&mut self, name: String, object: DeserializeGuard<StreamingPolicy>) -> Effect {
        let malformed = object.0.is_err();
        let version = version(object.meta().resource_version.as_deref());
        let published = self.policies.entry(name.clone()).or_default();
        if version < published.version {
            return Effect::Unchanged;
        }
        published.version = version;
        let (metadata, content, status) = match object.0 {
            Ok(policy) => (policy.metadata, Ok(Content::read(&policy.spec)), policy.status),
            Err(invalid) => (invalid.metadata, Err(invalid.error), None),
        };
        let policy = Policy {
            uid: metadata.uid.unwrap_or_default(),
            created: metadata.creation_timestamp.map(|time| time.0),
            generation: metadata.generation,
            content,
            status,
        };
        let before = self.cluster.policies().get(&name).and_then(|policy| policy.status.as_ref());
        let status_changed = before != policy.status.as_ref();
        let changed = self.cluster.set_policy(name, policy);
        // A status that somebody else has changed is put right; what we wrote compares equal.
        self.dirty_policies |= changed || status_changed;
        self.dirty_scene |= changed;
        self.dirty_agents |= changed;
        match (malformed, changed) {
            (true, _) => Effect::Malformed,
            (false, true) => Effect::Changed,
            (false, false) => Effect::Unchanged,
        }
    }

    fn policy_gone(&mut self, name: &str) -> bool {
        self.policies.remove(name);
        self.retries.remove(&Key::Policy(name.to_owned()));
        let known = self.cluster.remove_policy(name);
        self.dirty_agents |= known;
        self.scene_changed(known);
        known
    }

    fn streaming_node(&mut self, name: String, object: DeserializeGuard<StreamingNode>) -> Effect {
        let (read, object) = match object.0 {
            Ok(object) => (Published::read(&object), Some(object)),
            Err(invalid) => {
                let version = version(invalid.metadata.resource_version.as_deref());
                (Published::unreadable(version), None)
            }
        };
        let malformed = object.is_none();
        let known = self.published.entry(name.clone()).or_default();
        if read.version < known.version {
            return Effect::Unchanged;
        }
        let mut same = (known.spec, known.status) == (read.spec, read.status);
        known.replace(read);
        let status = object.as_ref().and_then(|object| object.status.as_ref());
        let agent = status.and_then(|status| status.agent.clone());
        same &= !self.attempt(&name, object.as_ref());
        let change = self.cluster.set_agent(&name, agent.as_deref());
        let agent_changed = self.agent_changed(&name, change);
        if !same {
            self.dirty_nodes.insert(name);
        }
        match (malformed, same && !agent_changed) {
            (true, _) => Effect::Malformed,
            (false, true) => Effect::Unchanged,
            (false, false) => Effect::Changed,
        }
    }

    fn streaming_node_gone(&mut self, name: &str) -> bool {
        let known = self.published.remove(name).is_some();
        self.attempt(name, None);
        let change = self.cluster.set_agent(name, None);
        self.agent_changed(name, change);
        // Deleted by hand, or with an earlier Node of this name: it is wanted again.
        self.dirty_nodes.insert(name.to_owned());
        known
    }

    fn pod(&mut self, name: String, pod: Pod) -> Effect {
        let before = self.cluster.ready_apiservers();
        let changed = self.cluster.set_pod(name, ApiserverPod::read(&pod));
        let turned = before != self.cluster.ready_apiservers();
        self.dirty_policies |= turned;
        match self.scene_changed(changed) {
            Effect::Unchanged if turned => Effect::Changed,
            effect => effect,
        }
    }

    fn pod_gone(&mut self, name: &str) -> bool {
        let changed = self.cluster.set_pod(name.to_owned(), None);
        self.scene_changed(changed) == Effect::Changed
    }

    fn endpoints(&mut self, name: String, endpoints: Endpoints) -> Effect {
        // An empty name stands for the one object; see `known`.
        if let Some(seen) = self.listing.get_mut(&Kind::Endpoints) {
            seen.remove(&name);
            seen.insert(String::new());
        }
        let changed = self.cluster.set_endpoints(Some(endpoint_addresses(&endpoints)));
        self.scene_changed(changed)
    }

    fn endpoints_gone(&mut self, _: &str) -> bool {
        let changed = self.cluster.set_endpoints(None);
        self.scene_changed(changed) == Effect::Changed
    }

    /// Has looked at what a change of a node's agent concerns; `true` if that is anything.
    fn agent_changed(&mut self, node: &str, change: AgentChange) -> bool {
        if change.evidence {
            self.dirty_nodes.insert(node.to_owned());
        }
        // What becomes of streams is said only to policies that ask for something.
        let concerns = change.evidence || (change.proxy && self.cluster.has_wishes());
        self.dirty_policies |= concerns;
        concerns
    }

    fn scene_changed(&mut self, changed: bool) -> Effect {
        self.dirty_scene |= changed;
        self.dirty_policies |= changed;
        if changed { Effect::Changed } else { Effect::Unchanged }
    }
}

#[cfg(test)]
mod tests;
