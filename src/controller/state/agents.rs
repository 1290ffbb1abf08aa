//! The agents' part of the state: the DaemonSet that is stored, and the pods that it has.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Pod};

use super::State;
use crate::{
    cluster::{AgentPod, Rollout},
    controller::{
        agents::{AgentsSettings, StoredAgents, daemon_set},
        event_records,
        metrics::{Effect, Kind},
        published::digest,
        write::{Body, Key, Write},
    },
};

/// How long an agent that was ready may be unready and still be believed. A kubelet that restarts
/// calls every pod unready until it has probed it, a period and some seconds later; a restart of
/// kubelets must not turn verdicts back and forth.
pub(super) const GRACE: Duration = Duration::from_secs(30);

/// What is known of the agents that are rolled out.
#[derive(Debug)]
pub(super) struct Agents {
    settings: AgentsSettings,
    pub stored: Option<StoredAgents>,
    /// What we wrote last, and what was stored after that, as digests.
    settled: Option<(u64, u64)>,
    /// The pods, by name.
    pub pods: HashMap<String, AgentPod>,
    /// How many ready pods a node has: while one follows another there may be two.
    ready: HashMap<String, usize>,
    /// The pods that have been ready.
    proven: HashSet<String>,
    /// Nodes whose agent was ready, is not, and is there: until when it is believed, once the clock
    /// has been looked at.
    lapsing: HashMap<String, Option<Instant>>,
}

impl Agents {
    fn new(settings: AgentsSettings) -> Self {
        let (stored, settled) = (None, None);
        let (pods, ready, lapsing) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { settings, stored, settled, pods, ready, proven: HashSet::new(), lapsing }
    }

    fn key(&self) -> Key {
        let AgentsSettings { namespace, name, .. } = &self.settings;
        Key::Agents { namespace: namespace.clone(), name: name.clone() }
    }

    /// The name of the DaemonSet, if it is there.
    pub fn name(&self) -> Option<&str> {
        self.stored.as_ref().map(|_| self.settings.name.as_str())
    }

    /// Takes a pod, or that it is gone; tells the nodes for which that may matter.
    fn set_pod(&mut self, name: &str, pod: Option<AgentPod>) -> HashSet<String> {
        let old = match &pod {
            Some(pod) => self.pods.insert(name.to_owned(), pod.clone()),
            None => {
                self.proven.remove(name);
                self.pods.remove(name)
            }
        };
        if let Some(pod) = pod.as_ref().filter(|pod| pod.ready) {
            self.proven.insert(name.to_owned());
            *self.ready.entry(pod.node.clone()).or_default() += 1;
        }
        if let Some(pod) = old.as_ref().filter(|pod| pod.ready)
            && let Some(count) = self.ready.get_mut(&pod.node)
        {
            *count -= 1;
            if *count == 0 {
                self.ready.remove(&pod.node);
            }
        }
        old.into_iter().chain(pod).map(|pod| pod.node).collect()
    }

    /// Whether the agent of a node is to be believed, which it `was` so far.
    fn vouched(&mut self, node: &str, was: bool) -> bool {
        let ready = self.ready.contains_key(node);
        let mut pods = self.pods.iter().filter(|(_, pod)| pod.node == node && !pod.ending);
        let stays = pods.any(|(name, _)| self.proven.contains(name));
        if ready || !was || !stays {
            self.lapsing.remove(node);
            return ready;
        }
        self.lapsing.entry(node.to_owned()).or_default();
        true
    }

    /// The nodes whose agent has been unready for too long.
    fn lapsed(&mut self, instant: Instant) -> Vec<String> {
        let until = |since: &mut Option<Instant>| *since.get_or_insert(instant + GRACE);
        let over = self
            .lapsing
            .iter_mut()
            .filter_map(|(node, since)| (until(since) <= instant).then(|| node.clone()));
        let over: Vec<_> = over.collect();
        for node in &over {
            self.lapsing.remove(node);
        }
        over
    }

    /// When the next one will have been; at once where the clock has not been looked at.
    pub fn next_lapse(&self, instant: Instant) -> Option<Instant> {
        self.lapsing.values().map(|until| until.unwrap_or(instant)).min()
    }
}

impl State {
    /// The state of a controller that rolls out agents, or of one that does not.
    pub fn new(agents: Option<AgentsSettings>) -> Self {
        let mut state = Self { agents: agents.map(Agents::new), ..Self::default() };
        // Where nobody rolls out agents a report that is stored is an old one.
        state.cluster.watch_agents();
        state
    }

    /// Whether this kind is watched at all.
    pub(super) fn watches(&self, kind: Kind) -> bool {
        match kind {
            Kind::AgentPod | Kind::DaemonSet => self.agents.is_some(),
            Kind::KubeadmConfig => self.changes.settings.kubeadm,
            Kind::Flags => self.changes.settings.flags.is_some(),
            _ => true,
        }
    }

    pub(super) fn daemon_set(&mut self, _: String, object: DaemonSet) -> Effect {
        let Some(agents) = &mut self.agents else { return Effect::Unchanged };
        let read = StoredAgents::read(&object);
        let of = |known: &StoredAgents| (known.uid.clone(), known.ending, known.digest());
        let (old, new) = (agents.stored.as_ref().map(of), of(&read));
        if agents.stored.as_ref().is_some_and(|known| read.version < known.version) {
            return Effect::Unchanged;
        }
        agents.stored = Some(read);
        if old.as_ref() == Some(&new) {
            return Effect::Unchanged;
        }
        self.dirty_agents = true;
        Effect::Changed
    }

    pub(super) fn daemon_set_gone(&mut self, _: &str) -> bool {
        let known = self.agents.as_mut().and_then(|agents| agents.stored.take()).is_some();
        self.dirty_agents |= known;
        known
    }

    pub(super) fn agent_pod(&mut self, name: String, pod: Pod) -> Effect {
        let Some(agents) = &self.agents else { return Effect::Unchanged };
        let pod = AgentPod::read(&pod).filter(|pod| pod.daemon_set == agents.settings.name);
        if self.set_agent_pod(&name, pod) { Effect::Changed } else { Effect::Unchanged }
    }

    pub(super) fn agent_pod_gone(&mut self, name: &str) -> bool {
        self.set_agent_pod(name, None)
    }

    fn set_agent_pod(&mut self, name: &str, pod: Option<AgentPod>) -> bool {
        let Some(agents) = &mut self.agents else { return false };
        let nodes = agents.set_pod(name, pod);
        let mut concerns = false;
        for node in nodes {
            let was = self.cluster.agent_ready(&node);
            let vouched = self.agents.as_mut().is_some_and(|a| a.vouched(&node, was));
            let change = self.cluster.set_agent_ready(&node, vouched);
            concerns |= self.agent_changed(&node, change);
        }
        concerns
    }

    /// Believes agents no longer that have been unready for too long.
    pub(super) fn let_agents_lapse(&mut self, instant: Instant) {
        let Some(agents) = &mut self.agents else { return };
        for node in agents.lapsed(instant) {
            let change = self.cluster.set_agent_ready(&node, false);
            self.agent_changed(&node, change);
        }
    }

    /// The write that brings the DaemonSet to what the policies want, if one is due.
    pub(super) fn agents_write(&mut self, instant: Instant) -> Option<Write> {
        let agents = self.agents.as_ref()?;
        let key = agents.key();
        // Without a list of what is stored everything would look gone, and how a pod says seccomp
        // depends on the apiserver's version.
        let listed = [Kind::StreamingPolicy, Kind::DaemonSet];
        if !listed.iter().all(|kind| self.listed.contains(kind)) || !self.served_told {
            return None;
        }
        if self.waits(&key, instant) {
            // It is looked at again when the write under way has ended, or the wait.
            return None;
        }
        let stored = agents.stored.as_ref();
        let running = stored.map(|stored| &stored.running);
        let body = match (self.cluster.rollout(running), stored) {
            // What is being deleted is waited for.
            (_, Some(stored)) if stored.ending => None,
            (Rollout::AsIs, _) | (Rollout::Nothing, None) => None,
            (Rollout::Nothing, Some(stored)) => Some(Body::NoAgents { uid: stored.uid.clone() }),
            (Rollout::On(wanted), stored) => {
                let wanted = daemon_set(&agents.settings, &wanted, self.cluster.served());
                let settled = stored.map(|stored| (digest(&wanted), stored.digest()));
                let same = stored.is_some_and(|stored| stored.is(&wanted));
                // What differs although it was written is what the apiserver makes of it.
                (!same && (settled.is_none() || settled != agents.settled))
                    .then(|| Body::Agents(Box::new(wanted)))
            }
        };
        let Some(body) = body else {
            self.retries.remove(&key);
            return None;
        };
        let records = match (&body, stored) {
            (Body::Agents(_), None) => {
                event_records::of_agents(&self.cluster, &agents.settings, None)
            }
            (Body::NoAgents { .. }, Some(stored)) => {
                event_records::of_agents(&self.cluster, &agents.settings, Some(&stored.running))
            }
            _ => Vec::new(),
        };
        Some(Write { key, body, records })
    }

    /// A write of the DaemonSet has succeeded; `written` is what was wanted, and what is stored.
    pub fn agents_written(&mut self, written: Option<(&serde_json::Value, DaemonSet)>) {
        let Some(agents) = &mut self.agents else { return };
        let key = agents.key();
        self.in_flight.remove(&key);
        self.retries.remove(&key);
        match written {
            Some((wanted, stored)) => {
                let wanted = digest(wanted);
                self.daemon_set(String::new(), stored);
                if let Some(agents) = &mut self.agents {
                    let stored = agents.stored.as_ref();
                    agents.settled = stored.map(|stored| (wanted, stored.digest()));
                }
            }
            // The watch tells when it is gone; until then it is on its way.
            None => agents.stored.iter_mut().for_each(|stored| stored.ending = true),
        }
        // The policies may have changed meanwhile.
        self.dirty_agents = true;
    }
}
