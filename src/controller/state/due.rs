//! What the state wants written, and what becomes of it.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::core::DeserializeGuard;

use super::State;
use crate::{
    api::{StreamingNode, StreamingNodeSpec, StreamingPolicy, StreamingPolicyStatus},
    cluster::Moment,
    controller::{
        event_records,
        metrics::Kind,
        published::{Published, PublishedFlags, version},
        write::{Body, Key, Write},
    },
    kubernetes::{events::EventRecord, retry::Pauses},
};

/// Nodes that are looked at in one turn, so that a turn stays short on the largest cluster.
const NODES_A_TURN: usize = 2_000;

/// A failed write is tried again after this long, doubled each time up to [`RETRY_MAX`].
pub(super) const RETRY_MIN: Duration = Duration::from_millis(500);
pub(super) const RETRY_MAX: Duration = Duration::from_secs(60);

/// An object whose last write failed.
#[derive(Debug)]
pub(super) struct Retry {
    /// `None` once it is due.
    after: Option<Instant>,
    pauses: Pauses,
}

impl Default for Retry {
    fn default() -> Self {
        Self { after: None, pauses: Pauses::new(RETRY_MIN, RETRY_MAX) }
    }
}

impl State {
    /// The writes that are due, at most `room` of them for nodes; policies come first and always.
    pub fn due(&mut self, now: Timestamp, instant: Instant, room: usize) -> Vec<Write> {
        if !self.all_synced() {
            return Vec::new();
        }
        self.let_agents_lapse(instant);
        if self.next_change.is_some_and(|at| at <= now) {
            self.dirty_policies = true;
            self.dirty_scene = true;
        }
        if self.changes.plans.next.is_some_and(|at| at <= now) {
            self.dirty_policies = true;
        }
        self.next_change = self.cluster.next_change(now);
        for (key, retry) in &mut self.retries {
            if retry.after.is_some_and(|after| after <= instant) {
                retry.after = None;
                match key {
                    Key::Policy(_) => self.dirty_policies = true,
                    Key::Node(name) => drop(self.dirty_nodes.insert(name.clone())),
                    Key::Agents { .. } => self.dirty_agents = true,
                    Key::Kubeadm | Key::Flags(_) => self.dirty_policies = true,
                }
            }
        }
        if std::mem::take(&mut self.dirty_scene) {
            self.dirty_nodes = self.cluster.nodes().keys().cloned().collect();
        }
        let mut writes = Vec::new();
        if std::mem::take(&mut self.dirty_policies) {
            self.plan(now);
            let moment = self.cluster.at(now);
            let (due, settled, again) = self.policy_writes(&moment, instant);
            writes = due;
            writes.extend(self.kubeadm_write(instant));
            writes.extend(self.flags_write(&moment, instant));
            self.summary = Some(moment.summary());
            self.dirty_policies = again;
            self.retries.retain(|key, _| !settled.contains(key));
            self.in_flight.extend(writes.iter().map(|write| write.key.clone()));
        }
        if std::mem::take(&mut self.dirty_agents)
            && let Some(write) = self.agents_write(instant)
        {
            self.in_flight.insert(write.key.clone());
            writes.push(write);
        }
        writes.extend(self.due_nodes(now, instant, room));
        writes
    }

    /// The writes for nodes that are due, at most `room`.
    pub fn due_nodes(&mut self, now: Timestamp, instant: Instant, room: usize) -> Vec<Write> {
        let mut writes = Vec::new();
        // Without the list of what is stored every node would look new.
        if self.all_synced() && self.listed.contains(&Kind::StreamingNode) {
            self.node_writes(now, instant, room, &mut writes);
            self.in_flight.extend(writes.iter().map(|write| write.key.clone()));
        }
        writes
    }

    /// Whether nodes wait to be looked at, such as for room.
    pub fn has_backlog(&self) -> bool {
        !self.dirty_nodes.is_empty()
    }

    pub(super) fn waits(&self, key: &Key, instant: Instant) -> bool {
        self.in_flight.contains(key)
            || self.retries.get(key).and_then(|r| r.after).is_some_and(|after| after > instant)
    }

    /// The writes for policies, the policies that are as they ought to be, and whether one has to be
    /// looked at again: what is being written may be old already.
    fn policy_writes(&self, moment: &Moment<'_>, instant: Instant) -> (Vec<Write>, Vec<Key>, bool) {
        let (mut writes, mut settled, mut again) = (Vec::new(), Vec::new(), false);
        for (name, policy) in self.cluster.policies() {
            let key = Key::Policy(name.clone());
            if self.waits(&key, instant) {
                again |= self.in_flight.contains(&key);
                continue;
            }
            let told = self.changes.plans.told.get(name);
            let Some(status) = moment.policy_report(name, told) else { continue };
            let published = self.policies.get(name);
            if policy.status.as_ref() == Some(&status)
                || published.is_some_and(|p| p.is_settled(&status, policy.status.as_ref()))
            {
                settled.push(key);
                continue;
            }
            let records = event_records::of_policy(name, policy, &status);
            writes.push(Write { key, body: Body::Policy(status), records });
        }
        (writes, settled, again)
    }

    fn node_writes(
        &mut self,
        now: Timestamp,
        instant: Instant,
        room: usize,
        writes: &mut Vec<Write>,
    ) {
        let scene = self.cluster.node_scene(now);
        let new = Published::default();
        for _ in 0..NODES_A_TURN {
            if writes.len() >= room {
                break;
            }
            let Some(name) = self.dirty_nodes.pop_first() else { break };
            let key = Key::Node(name.clone());
            let Some(node) = self.cluster.nodes().get(&name) else {
                self.retries.remove(&key);
                continue;
            };
            if self.waits(&key, instant) {
                continue;
            }
            let stored = self.published.get(&name);
            let known = stored.unwrap_or(&new);
            let follows = known.follows();
            let mut report = scene.report(&name, node, follows, &known.evidence, now);
            // A node that keeps what it has may still be asked for a change.
            if stored.is_none() || known.stored.is_some() || report.spec.is_some() {
                let kept = report.spec.or_else(|| known.stored.clone()).unwrap_or_default();
                let change = known.stored.as_ref().and_then(|spec| spec.change.as_deref());
                let change = self.change_of(&name, change).map(Box::new);
                report.spec = Some(StreamingNodeSpec { change, ..kept });
            }
            let wanted = PublishedFlags::of(&report, &node.uid);
            let (spec, status) = match stored {
                None => (true, true),
                Some(stored) => stored.differs(wanted),
            };
            if !spec && !status {
                self.retries.remove(&key);
                continue;
            }
            let record = event_records::of_node(&name, node, &known.verdict, &report);
            let records = record.into_iter().collect();
            let spec = report.spec.filter(|_| spec).map(|spec| (spec, node.uid.clone()));
            let (exists, status) = (stored.is_some(), status.then_some(Box::new(report.status)));
            // A version that is no number says nothing.
            let version = stored.map(|stored| stored.version).filter(|known| *known != u64::MAX);
            let body = Body::Node { spec, exists, version, status, wanted };
            writes.push(Write { key, body, records });
        }
    }

    /// A write of a policy's status has succeeded; the apiserver answered with what it stored.
    pub fn policy_written(
        &mut self,
        name: &str,
        wanted: &StreamingPolicyStatus,
        stored: DeserializeGuard<StreamingPolicy>,
    ) {
        let key = Key::Policy(name.to_owned());
        self.in_flight.remove(&key);
        self.retries.remove(&key);
        if !self.cluster.policies().contains_key(name) {
            return;
        }
        let status = stored.0.as_ref().ok().and_then(|policy| policy.status.clone());
        self.policy(name.to_owned(), stored);
        if let Some(published) = self.policies.get_mut(name) {
            published.settle(wanted, status.as_ref());
        }
    }

    /// A write of a node's object has succeeded; the apiserver answered with what it stored.
    pub fn node_written(
        &mut self,
        name: &str,
        stored: Option<StreamingNode>,
        wanted: PublishedFlags,
    ) {
        let key = Key::Node(name.to_owned());
        self.in_flight.remove(&key);
        self.retries.remove(&key);
        let answered =
            stored.as_ref().map(|stored| version(stored.metadata.resource_version.as_deref()));
        if let Some(stored) = stored {
            self.streaming_node(name.to_owned(), DeserializeGuard(Ok(stored)));
        }
        // The watch may have shown a newer version meanwhile, which is not the answer to this write.
        if let Some(published) = self.published.get_mut(name)
            && answered.is_none_or(|version| version == published.version)
        {
            published.settle(wanted);
        }
        // The node may have changed meanwhile.
        self.dirty_nodes.insert(name.to_owned());
    }

    /// A write has failed; it is tried again after a while.
    pub fn write_failed(&mut self, key: Key, instant: Instant) {
        self.in_flight.remove(&key);
        let wanted = match &key {
            Key::Policy(name) => self.cluster.policies().contains_key(name),
            Key::Node(name) => self.cluster.nodes().contains_key(name),
            Key::Agents { .. } => self.agents.is_some(),
            Key::Kubeadm | Key::Flags(_) => true,
        };
        // What was deleted meanwhile failed because of that.
        if !wanted {
            self.retries.remove(&key);
            return;
        }
        let retry = self.retries.entry(key).or_default();
        retry.after = Some(instant + retry.pauses.failed());
    }

    /// What to tell the author of a policy whose status cannot be written, once for each version
    /// of the policy.
    pub fn unwritable(&mut self, name: &str) -> Option<EventRecord> {
        let policy = self.cluster.policies().get(name)?;
        let published = self.policies.get_mut(name)?;
        if !published.first_refusal() {
            return None;
        }
        Some(event_records::of_unwritable_policy(name, policy))
    }

    /// A ConfigMap has been written; its watch tells what is stored.
    pub fn configured(&mut self, key: &Key) {
        self.in_flight.remove(key);
        self.retries.remove(key);
        self.dirty_policies = true;
    }

    /// How many writes for nodes are under way.
    pub fn node_writes_in_flight(&self) -> usize {
        self.in_flight.iter().filter(|key| matches!(key, Key::Node(_))).count()
    }

    /// When to look again although nothing was said: a retry, an override that ends, or an agent that
    /// has been unready for too long.
    pub fn wake(&self, now: Timestamp, instant: Instant) -> Option<Instant> {
        // What is due then could not be written; a time that has passed would wake without end.
        if !self.all_synced() {
            return None;
        }
        let retry = self.retries.values().filter_map(|retry| retry.after).min();
        let change = self.next_change.into_iter().chain(self.changes.plans.next).min();
        let change = change
            .map(|at| instant + Duration::try_from(at.duration_since(now)).unwrap_or_default());
        let lapse = self.agents.as_ref().and_then(|agents| agents.next_lapse(instant));
        retry.into_iter().chain(change).chain(lapse).min()
    }
}
