//! The controller's loop: watches in, writes out, one task that owns the state.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::Client;
use tokio::{
    sync::mpsc,
    task::{Id, JoinError, JoinSet},
};

use super::{
    agents,
    canary_runner::CanaryRunner,
    changes::{self, KUBEADM_CONFIG},
    metrics::{Kind, Metrics, WriteResult},
    state::{State, WatchEvent},
    watch,
    write::{self, Body, Key, Stored, Write},
};
use crate::{
    kubernetes::{
        events::{EventRecord, Publisher},
        lease::Fence,
    },
    process::health::{Need, Pulse},
};

/// Changes that come together are judged together: a restart of many kubelets is one verdict.
const SETTLE: Duration = Duration::from_millis(50);

/// Writes for nodes that are under way at once. The apiserver orders them; more would only queue.
const WRITES: usize = 16;

/// The loop turns at least this often, so that a standstill is one.
const TURN: Duration = Duration::from_secs(10);

/// How long writes that are under way may take at shutdown.
const GRACE: Duration = Duration::from_secs(10);

/// Everything the loop talks to.
pub struct Engine {
    /// The apiserver, without retries of the client's own.
    pub client: Client,
    /// Whether we still lead.
    pub fence: Fence,
    /// Events.
    pub publisher: Publisher<Metrics>,
    /// Counters.
    pub metrics: Metrics,
    /// Beats with the loop.
    pub turns: Pulse,
    /// Which objects have all been seen.
    pub synced: [(Kind, Need); Kind::ALL.len()],
    /// How agents are rolled out, if they are.
    pub agents: Option<agents::AgentsSettings>,
    /// What is changed or published beside our own objects.
    pub changes: changes::ChangesSettings,
    /// How changes are proven.
    pub canary: CanaryRunner,
}

type Done = (Write, Result<Stored, write::Error>);

impl Engine {
    /// Runs until `stop` resolves, then lets the writes under way end.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let (sender, mut changes) = mpsc::channel(1024);
        let mut watches =
            watch::start(&self.client, self.agents.as_ref(), &self.changes, &sender, &self.metrics);
        let mut state = State::new(self.agents.clone()).with_changes(self.changes.clone());
        let mut trials: JoinSet<()> = JoinSet::new();
        let mut writes: JoinSet<Done> = JoinSet::new();
        let mut keys: HashMap<Id, Key> = HashMap::new();
        let mut dirty_since: Option<Instant> = None;
        let mut stop = std::pin::pin!(stop);
        loop {
            let now = Instant::now();
            self.turns.beat(now);
            let turn = now + TURN;
            let wake = state.wake(Timestamp::now(), now).map_or(turn, |at| at.min(turn));
            let wake = dirty_since.map_or(wake, |since| wake.min(since + SETTLE));
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(done) = writes.join_next_with_id() => {
                    self.written(&mut state, &mut keys, done);
                    // Nodes that waited for room need not wait for the next turn.
                    if state.has_backlog() && self.fence.holds() {
                        let (now, room) = (Timestamp::now(), room(&state));
                        let due = state.due_nodes(now, Instant::now(), room);
                        self.send(due, &mut writes, &mut keys);
                    }
                }
                Some(change) = changes.recv() => {
                    self.changed(&mut state, change);
                    // What is waiting already belongs to the same turn.
                    while let Ok(change) = changes.try_recv() {
                        self.changed(&mut state, change);
                    }
                }
                Some(_) = trials.join_next() => {}
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            for record in state.told() {
                self.tell(&record);
            }
            let now = Instant::now();
            let woken = state.wake(Timestamp::now(), now).is_some_and(|at| at <= now);
            if state.is_dirty() {
                dirty_since.get_or_insert(now);
            }
            if woken || dirty_since.is_some_and(|since| now.duration_since(since) >= SETTLE) {
                dirty_since = None;
                self.evaluate(&mut state, &mut writes, &mut keys);
                if let Some(due) = state.trial(Timestamp::now()).filter(|_| self.fence.holds()) {
                    let (canary, sender) = (self.canary.clone(), sender.clone());
                    trials.spawn(async move {
                        let proves = due.trial.proves.clone();
                        let tried = canary.try_out(due).await;
                        // Nobody listens any more only when we are about to end.
                        let _ = sender.send(WatchEvent::Tried(proves, tried)).await;
                    });
                }
            }
        }
        trials.shutdown().await;
        watches.shutdown().await;
        let rest = async { while writes.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, rest).await.is_err() {
            tracing::warn!("writes were still under way at shutdown");
        }
        self.publisher.drain(GRACE).await;
    }

    fn changed(&self, state: &mut State, change: WatchEvent) {
        if let Some((kind, effect)) = state.apply(change) {
            self.metrics.watch_event(kind, effect);
        }
        for (kind, synced) in &self.synced {
            synced.met(state.synced(*kind));
        }
    }

    fn evaluate(&self, state: &mut State, writes: &mut JoinSet<Done>, keys: &mut HashMap<Id, Key>) {
        // A leader that has lost its lease judges nothing any more; the process is about to end.
        if !self.fence.holds() {
            return;
        }
        let started = Instant::now();
        let now = Timestamp::now();
        let due = state.due(now, started, room(state));
        self.send(due, writes, keys);
        if let Some(summary) = state.judged() {
            for (redirects, count) in summary.redirects {
                self.metrics.nodes(redirects.as_str(), count);
            }
            self.metrics.blocking_nodes(summary.blocking);
            self.metrics.failing_nodes(summary.failing);
            self.metrics.safe_to_disable(summary.safe);
            self.metrics.decision(summary.reason);
        }
        self.metrics.evaluated(started.elapsed());
    }

    fn send(&self, due: Vec<Write>, writes: &mut JoinSet<Done>, keys: &mut HashMap<Id, Key>) {
        for write in due {
            let client = self.client.clone();
            let key = write.key.clone();
            let task = writes.spawn(async move {
                let result = write::perform(&client, &write).await;
                (write, result)
            });
            keys.insert(task.id(), key);
        }
    }

    fn tell(&self, record: &EventRecord) {
        tracing::info!(
            kind = record.regarding.kind,
            name = record.regarding.name,
            reason = record.reason,
            message = record.message,
            "transition"
        );
        self.publisher.publish(record);
    }

    fn written(
        &self,
        state: &mut State,
        keys: &mut HashMap<Id, Key>,
        done: Result<(Id, Done), JoinError>,
    ) {
        let (id, (write, result)) = match done {
            Ok(done) => done,
            // A panic in a write is a bug of ours; the object is tried again like any failure.
            Err(error) => {
                tracing::error!(error = %error, "a write did not end");
                if let Some(key) = keys.remove(&error.id()) {
                    state.write_failed(key, Instant::now());
                }
                return;
            }
        };
        keys.remove(&id);
        let (kind, name) = match &write.key {
            Key::Policy(name) => (Kind::StreamingPolicy, name.as_str()),
            Key::Node(name) => (Kind::StreamingNode, name.as_str()),
            Key::Agents { name, .. } => (Kind::DaemonSet, name.as_str()),
            Key::Kubeadm => (Kind::KubeadmConfig, KUBEADM_CONFIG),
            Key::Flags(flags) => (Kind::Flags, flags.name.as_str()),
        };
        match result {
            Ok(stored) => {
                self.metrics.write(kind, WriteResult::Ok);
                for record in &write.records {
                    self.tell(record);
                }
                match (&write.body, stored) {
                    (Body::Policy(status), Stored::Policy(stored)) => {
                        state.policy_written(name, status, *stored);
                    }
                    (Body::Node { wanted, .. }, Stored::Node(stored)) => {
                        state.node_written(name, stored.map(|stored| *stored), *wanted);
                    }
                    (Body::Agents(wanted), Stored::Agents(Some(stored))) => {
                        state.agents_written(Some((wanted, *stored)));
                    }
                    (Body::NoAgents { .. }, Stored::Agents(_)) => state.agents_written(None),
                    (_, Stored::ConfigMap) => state.configured(&write.key),
                    _ => {}
                }
            }
            Err(error) => {
                let conflict = error.reason() == "WriteConflict";
                let result = if conflict { WriteResult::Conflict } else { WriteResult::Error };
                self.metrics.write(kind, result);
                self.metrics.error(error.reason());
                tracing::warn!(
                    kind = kind.as_str(), name, reason = error.reason(), error = %error,
                    "write failed, will be tried again"
                );
                // The stored policy is one that its own schema refuses: an Event is all that can
                // still reach its author.
                if error.reason() == "WriteInvalid"
                    && matches!(write.key, Key::Policy(_))
                    && let Some(record) = state.unwritable(name)
                {
                    self.publisher.publish(&record);
                }
                state.write_failed(write.key, Instant::now());
            }
        }
    }
}

/// How many more writes for nodes may be sent.
fn room(state: &State) -> usize {
    WRITES.saturating_sub(state.node_writes_in_flight())
}
