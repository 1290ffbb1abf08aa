//! The state, told what watches would tell it, with an apiserver that stores what is written.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    due::{RETRY_MAX, RETRY_MIN},
    *,
};
use crate::{
    api::StreamingNodeStatus,
    controller::write::{Body, Write},
    decision::migration::STREAMING_REDIRECTS,
};

mod agents;
mod changes;

/// A state, its clocks, and what an apiserver would have stored of our objects.
struct Stage {
    state: State,
    now: Timestamp,
    instant: Instant,
    stored: HashMap<String, StreamingNode>,
    /// The policy's.
    spec: Value,
    version: u64,
}

impl Stage {
    /// Nothing is listed yet.
    fn new() -> Self {
        Self::with(State::new(None))
    }

    fn with(state: State) -> Self {
        Self {
            state,
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            instant: Instant::now(),
            stored: HashMap::new(),
            spec: json!({}),
            version: 100,
        }
    }

    /// Everything is listed: one apiserver, these nodes and one policy.
    fn listed(nodes: Vec<NodeView>) -> Self {
        let mut stage = Self::new();
        stage.list_all(nodes);
        stage
    }

    fn list_all(&mut self, nodes: Vec<NodeView>) {
        self.list(|event| WatchEvent::Pod(Box::new(event)), vec![apiserver("")]);
        self.list(WatchEvent::Endpoints, vec![from(json!({"metadata": {"name": "kubernetes"}}))]);
        self.list(WatchEvent::Policy, vec![policy(1, json!({}), Value::Null)]);
        self.list(WatchEvent::StreamingNode, vec![]);
        self.list(WatchEvent::Node, nodes);
    }

    /// As listed, and everything that follows is written.
    fn settled(nodes: Vec<NodeView>) -> Self {
        let mut stage = Self::listed(nodes);
        stage.work_off();
        stage
    }

    fn list<K>(&mut self, change: fn(Event<K>) -> WatchEvent, objects: Vec<K>) {
        self.state.apply(change(Event::Init));
        for object in objects {
            self.state.apply(change(Event::InitApply(object)));
        }
        self.state.apply(change(Event::InitDone));
    }

    fn due(&mut self) -> Vec<Write> {
        self.state.due(self.now, self.instant, usize::MAX)
    }

    fn keys(&mut self) -> Vec<Key> {
        let mut keys: Vec<_> = self.due().into_iter().map(|write| write.key).collect();
        keys.sort();
        keys
    }

    fn pass(&mut self, time: Duration) {
        self.instant += time;
        self.now += jiff::SignedDuration::try_from(time).unwrap();
    }

    /// Writes until nothing is due any more; tells how many writes that were.
    fn work_off(&mut self) -> usize {
        let mut count = 0;
        for _ in 0..10 {
            let writes = self.due();
            if writes.is_empty() {
                assert!(!self.state.is_dirty(), "dirty without work");
                return count;
            }
            count += writes.len();
            for write in writes {
                self.store(write, |status| status);
            }
        }
        panic!("writes without end");
    }

    /// Stores a write as an apiserver that makes of a status what `mangle` says.
    fn store(&mut self, write: Write, mangle: impl Fn(StreamingNodeStatus) -> StreamingNodeStatus) {
        self.version += 1;
        match (write.key, write.body) {
            (Key::Policy(name), Body::Policy(status)) => {
                let spec = self.spec.clone();
                let stored = policy(self.version, spec, json!(status));
                self.state.policy_written(&name, &status, stored);
            }
            (Key::Node(name), Body::Node { spec, status, wanted, .. }) => {
                let stored = self
                    .stored
                    .entry(name.clone())
                    .or_insert_with(|| StreamingNode::new(&name, Default::default()));
                if let Some((spec, uid)) = spec {
                    stored.spec = spec;
                    stored.metadata.owner_references = from(json!([
                        {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid},
                    ]));
                }
                if let Some(status) = status {
                    // These parts are other managers'.
                    let before = stored.status.take().unwrap_or_default();
                    let (agent, change) = (before.agent, before.change);
                    stored.status = Some(mangle(StreamingNodeStatus { agent, change, ..*status }));
                }
                stored.metadata.resource_version = Some(self.version.to_string());
                let stored = stored.clone();
                self.state.node_written(&name, Some(stored), wanted);
            }
            (Key::Agents { .. }, Body::Agents(wanted)) => {
                let stored = agents::stored(&wanted, self.version);
                self.state.agents_written(Some((&wanted, stored)));
            }
            (Key::Agents { .. }, Body::NoAgents { .. }) => self.state.agents_written(None),
            (key @ Key::Kubeadm, Body::Kubeadm { text, .. }) => {
                self.state.configured(&key);
                let told = Event::Apply(changes::kubeadm(&text, self.version));
                self.state.apply(WatchEvent::KubeadmConfig(Box::new(told)));
            }
            (key @ Key::Flags(_), Body::Flags(data)) => {
                self.state.configured(&key);
                let object = json!({"metadata": {"name": "sluice-flags"}, "data": data});
                self.state.apply(WatchEvent::Flags(Box::new(Event::Apply(from(object)))));
            }
            (key, body) => panic!("{key:?} with {body:?}"),
        }
    }

    /// The watch tells what is stored of a node, changed by `change`.
    fn told(&mut self, name: &str, change: impl FnOnce(&mut StreamingNode)) -> Effect {
        let mut object = self.stored[name].clone();
        change(&mut object);
        let event = Event::Apply(DeserializeGuard(Ok(object)));
        self.state.apply(WatchEvent::StreamingNode(event)).unwrap().1
    }

    fn node(&mut self, view: NodeView) -> Effect {
        self.state.apply(WatchEvent::Node(Event::Apply(view))).unwrap().1
    }

    fn total(&self) -> u32 {
        self.state.cluster.at(self.now).policy_report("gate", None).unwrap().nodes.total
    }
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn node(name: &str, version: &str) -> NodeView {
    from(json!({
        "metadata": {"name": name, "uid": format!("uid-of-{name}")},
        "status": {"nodeInfo": {"kubeletVersion": version}},
    }))
}

fn policy(version: u64, spec: Value, status: Value) -> DeserializeGuard<StreamingPolicy> {
    from(json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingPolicy",
        "metadata": {
            "name": "gate", "uid": "p", "generation": 1, "resourceVersion": version.to_string(),
        },
        "spec": spec, "status": status,
    }))
}

fn apiserver(flag: &str) -> Pod {
    from(json!({
        "metadata": {
            "name": "kube-apiserver-cp1",
            "annotations": {"kubernetes.io/config.mirror": "hash"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "cp1", "uid": "u"}],
        },
        "spec": {"nodeName": "cp1", "containers": [{
            "name": "kube-apiserver", "image": "kube-apiserver:v1.20.2",
            "command": ["kube-apiserver", flag],
        }]},
    }))
}

fn of_node(name: &str) -> Key {
    Key::Node(name.to_owned())
}

fn of_policy() -> Key {
    Key::Policy("gate".to_owned())
}

#[test]
fn nothing_is_written_before_everything_is_listed() {
    let mut stage = Stage::new();
    stage.list(WatchEvent::Node, vec![node("w1", "v1.20.2")]);
    stage.list(WatchEvent::Policy, vec![policy(1, json!({}), Value::Null)]);
    stage.list(|event| WatchEvent::Pod(Box::new(event)), vec![]);
    stage.list(WatchEvent::StreamingNode, vec![]);
    assert_eq!(stage.keys(), []);
    assert_eq!(stage.state.judged(), None);
    stage.list(WatchEvent::Endpoints, vec![]);
    assert_eq!(stage.keys(), [of_policy(), of_node("w1")]);
    assert!(stage.state.judged().is_some());
    // Nothing has changed since.
    stage.due();
    assert_eq!(stage.state.judged(), None);
}

#[test]
fn what_cannot_be_listed_is_not_waited_for_and_refuses() {
    let mut stage = Stage::settled(vec![node("w1", "v1.20.2")]);
    stage.state = State::new(None);
    stage.list(WatchEvent::Node, vec![node("w1", "v1.20.2")]);
    stage.list(WatchEvent::Policy, vec![policy(1, json!({}), Value::Null)]);
    stage.list(WatchEvent::StreamingNode, vec![]);
    stage.list(WatchEvent::Endpoints, vec![]);
    assert_eq!(stage.keys(), []);
    stage.state.apply(WatchEvent::Lost(Kind::Pod, true));
    let writes = stage.due();
    let Body::Policy(status) = &writes[0].body else { panic!("{writes:?}") };
    let safe = status.conditions.iter().find(|c| c.type_ == "SafeToDisable").unwrap();
    assert_eq!((safe.status.as_str(), safe.reason.as_str()), ("False", "WatchLost"));
}

#[test]
fn what_is_written_is_not_written_again() {
    let mut stage = Stage::listed(vec![node("w1", "v1.19.16"), node("w2", "v1.20.2")]);
    assert_eq!(stage.work_off(), 3);
    assert_eq!(stage.told("w1", |_| ()), Effect::Unchanged, "the echo");
    assert_eq!(stage.node(node("w1", "v1.19.16")), Effect::Unchanged, "a heartbeat");
    assert!(!stage.state.is_dirty());
}

#[test]
fn a_new_list_drops_what_is_not_in_it() {
    let mut stage = Stage::settled(vec![node("w1", "v1.20.2"), node("w2", "v1.20.2")]);
    assert_eq!(stage.total(), 2);
    stage.state.apply(WatchEvent::Node(Event::Init));
    stage.state.apply(WatchEvent::Node(Event::InitApply(node("w2", "v1.20.2"))));
    assert_eq!(stage.total(), 2, "a list that is under way says nothing of what is missing");
    stage.state.apply(WatchEvent::Node(Event::InitDone));
    assert_eq!(stage.total(), 1);
    assert_eq!(stage.keys(), [of_policy()], "its object goes with it, by its owner");
}

#[test]
fn an_echo_of_an_older_write_is_ignored() {
    let mut stage = Stage::settled(vec![node("w1", "v1.19.16")]);
    let old = stage.stored["w1"].clone();
    stage.node(node("w1", "v1.20.2"));
    stage.work_off();
    let effect = stage.told("w1", |object| *object = old);
    assert_eq!(effect, Effect::Unchanged);
    assert!(!stage.state.is_dirty());
}

#[test]
fn what_the_apiserver_changes_on_its_way_is_written_once() {
    let mut stage = Stage::listed(vec![node("w1", "v1.20.2")]);
    let writes = stage.due();
    for write in writes {
        stage.store(write, |status| StreamingNodeStatus { message: "cut".to_owned(), ..status });
    }
    assert_eq!(stage.keys(), []);
    // Somebody else's change is another matter.
    let change = |object: &mut StreamingNode| {
        object.metadata.resource_version = Some("1000".to_owned());
        object.status.as_mut().unwrap().verdict = "Safer".to_owned();
    };
    assert_eq!(stage.told("w1", change), Effect::Changed);
    assert_eq!(stage.keys(), [of_node("w1")]);
}

#[test]
fn a_failed_write_is_tried_again_later_and_later() {
    let mut stage = Stage::listed(vec![]);
    for wait in [500, 1000, 2000, 4000] {
        assert_eq!(stage.keys(), [of_policy()]);
        stage.state.write_failed(of_policy(), stage.instant);
        let wait = Duration::from_millis(wait);
        assert_eq!(stage.state.wake(stage.now, stage.instant), Some(stage.instant + wait));
        stage.pass(wait - Duration::from_millis(1));
        stage.node(node("w1", "v1.20.2"));
        assert!(!stage.keys().contains(&of_policy()), "before its time");
        stage.state.write_failed(of_node("w1"), stage.instant + Duration::from_secs(3600));
        stage.state.apply(WatchEvent::Node(Event::Delete(node("w1", "v1.20.2"))));
        stage.pass(Duration::from_millis(1));
    }
}

#[test]
fn a_write_that_succeeds_clears_what_failed_before() {
    let mut stage = Stage::listed(vec![]);
    for _ in 0..3 {
        assert_eq!(stage.keys(), [of_policy()]);
        stage.state.write_failed(of_policy(), stage.instant);
        stage.pass(RETRY_MAX);
    }
    assert_eq!(stage.work_off(), 1);
    assert_eq!(stage.state.wake(stage.now, stage.instant), None);
    stage.node(node("w1", "v1.20.2"));
    assert!(stage.keys().contains(&of_policy()));
    stage.state.write_failed(of_policy(), stage.instant);
    let wake = stage.state.wake(stage.now, stage.instant);
    assert_eq!(wake, Some(stage.instant + RETRY_MIN));
}

#[test]
fn what_is_gone_is_not_tried_again() {
    let mut stage = Stage::listed(vec![node("w1", "v1.20.2")]);
    assert_eq!(stage.keys(), [of_policy(), of_node("w1")]);
    stage.state.apply(WatchEvent::Node(Event::Delete(node("w1", "v1.20.2"))));
    stage.state.apply(WatchEvent::Policy(Event::Delete(policy(1, json!({}), Value::Null))));
    stage.state.write_failed(of_node("w1"), stage.instant);
    stage.state.write_failed(of_policy(), stage.instant);
    stage.pass(RETRY_MAX);
    assert_eq!(stage.keys(), []);
    assert!(stage.state.retries.is_empty(), "{:?}", stage.state.retries);
    // A later one of that name starts afresh.
    stage.node(node("w1", "v1.20.2"));
    assert_eq!(stage.keys(), [of_node("w1")]);
    stage.state.write_failed(of_node("w1"), stage.instant);
    let wake = stage.state.wake(stage.now, stage.instant);
    assert_eq!(wake, Some(stage.instant + RETRY_MIN));
}

#[test]
fn nothing_wakes_while_nothing_can_be_written() {
    let mut stage = Stage::listed(vec![]);
    stage.state.listed.remove(&Kind::Pod);
    stage.state.apply(WatchEvent::Lost(Kind::Pod, true));
    assert_eq!(stage.keys(), [of_policy()]);
    stage.state.write_failed(of_policy(), stage.instant);
    // The watch answers again, but has not listed anything yet.
    stage.state.apply(WatchEvent::Lost(Kind::Pod, false));
    stage.pass(RETRY_MIN);
    assert_eq!(stage.keys(), []);
    // A time that has passed would have the loop turn without end.
    assert_eq!(stage.state.wake(stage.now, stage.instant), None);
}

#[test]
fn what_is_under_way_is_not_written_a_second_time() {
    let mut stage = Stage::listed(vec![node("w1", "v1.20.2")]);
    let writes = stage.due();
    assert_eq!(writes.len(), 2);
    stage.node(node("w1", "v1.19.16"));
    assert_eq!(stage.keys(), []);
    for write in writes {
        stage.store(write, |status| status);
    }
    assert_eq!(stage.keys(), [of_policy(), of_node("w1")], "what changed meanwhile");
}

#[test]
fn writes_for_nodes_wait_for_room_and_policies_do_not() {
    let nodes = ["w1", "w2", "w3"].map(|name| node(name, "v1.20.2")).into();
    let mut stage = Stage::listed(nodes);
    let (now, instant) = (stage.now, stage.instant);
    assert_eq!(stage.state.due(now, instant, 0).len(), 1);
    for left in [2, 1] {
        let writes = stage.state.due(now, instant, left);
        assert_eq!(writes.len(), left);
        for write in writes {
            stage.store(write, |status| status);
        }
    }
    assert_eq!(stage.state.node_writes_in_flight(), 0);
}

#[test]
fn a_change_of_the_scene_has_every_node_looked_at() {
    let redirecting = |name| {
        let mut view = node(name, "v1.19.16");
        view.metadata.annotations = from(json!({STREAMING_REDIRECTS.annotation: "true"}));
        view
    };
    let mut stage = Stage::settled(["w1", "w2", "w3"].map(redirecting).into());
    let off = apiserver("--feature-gates=StreamingProxyRedirects=false");
    stage.state.apply(WatchEvent::Pod(Box::new(Event::Apply(off))));
    let all = [of_policy(), of_node("w1"), of_node("w2"), of_node("w3")];
    assert_eq!(stage.keys(), all, "what happens to streams there is another");
}

#[test]
fn the_end_of_an_override_wakes_and_takes_the_permission_back() {
    let mut stage = Stage::settled(vec![node("w1", "v1.19.16")]);
    let hour = Duration::from_secs(3600);
    let expires = stage.now + jiff::SignedDuration::from_hours(1);
    let spec = json!({
        "streamingProxyRedirects": "Disabled",
        "overrides": [{"node": "w1", "reason": "r", "expires": expires}],
    });
    let mut object = policy(500, spec, Value::Null);
    object.0.as_mut().unwrap().metadata.generation = Some(2);
    stage.state.apply(WatchEvent::Policy(Event::Apply(object)));
    let verdict = |stage: &mut Stage| {
        let writes = stage.due();
        writes.iter().for_each(|write| {
            stage.state.write_failed(write.key.clone(), stage.instant);
            stage.state.retries.clear();
        });
        writes.into_iter().find_map(|write| match write.body {
            Body::Node { status, .. } => status.map(|status| status.verdict),
            _ => None,
        })
    };
    assert_eq!(verdict(&mut stage).as_deref(), Some("Overridden"));
    assert_eq!(stage.state.wake(stage.now, stage.instant), Some(stage.instant + hour));
    stage.pass(hour);
    stage.due();
    let safe = stage.state.judged().unwrap();
    assert_eq!((safe.safe, safe.reason), (false, "NodesUnknown"));
    assert_eq!(stage.state.wake(stage.now, stage.instant), None);
}

#[test]
fn a_malformed_policy_is_told_once_for_each_of_its_versions() {
    let mut stage = Stage::listed(vec![]);
    let malformed = |version| policy(version, json!({"overrides": "none"}), Value::Null);
    for version in [7, 8] {
        let event = WatchEvent::Policy(Event::Apply(malformed(version)));
        assert_eq!(stage.state.apply(event).unwrap().1, Effect::Malformed);
        assert!(stage.state.unwritable("gate").is_some());
        assert!(stage.state.unwritable("gate").is_none());
    }
    let status = stage.state.cluster.at(stage.now).policy_report("gate", None).unwrap();
    let safe = status.conditions.iter().find(|c| c.type_ == "SafeToDisable").unwrap();
    assert_eq!((&*safe.status, &*safe.reason), ("False", "PolicyUnreadable"));
}

#[test]
fn somebody_elses_status_of_a_policy_is_put_right() {
    let mut stage = Stage::settled(vec![]);
    let event = Event::Apply(policy(1000, json!({}), json!({"gate": "Off"})));
    stage.state.apply(WatchEvent::Policy(event));
    assert_eq!(stage.keys(), [of_policy()]);
}
