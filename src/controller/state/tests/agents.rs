//! Agents: the DaemonSet that is wanted, and what a node's agent is believed.

use super::*;
use crate::{
    cluster::Rollout,
    controller::{agents::tests::settings, state::agents::GRACE},
};

/// A DaemonSet as an apiserver stores it.
pub(super) fn stored(wanted: &Value, version: u64) -> DaemonSet {
    let mut object = wanted.clone();
    object["metadata"]["uid"] = json!("d");
    object["metadata"]["resourceVersion"] = json!(version.to_string());
    object["spec"]["revisionHistoryLimit"] = json!(10);
    from(object)
}

fn agents_key() -> Key {
    Key::Agents { namespace: "sluice-system".to_owned(), name: "sluice-agent".to_owned() }
}

fn agents_listed(stage: &mut Stage, daemon_sets: Vec<DaemonSet>, pods: Vec<Pod>) {
    stage.list(|event| WatchEvent::DaemonSet(Box::new(event)), daemon_sets);
    stage.list(|event| WatchEvent::AgentPod(Box::new(event)), pods);
}

/// Everything is listed, and the policy has this spec.
fn stage(spec: Value) -> Stage {
    let mut stage = Stage::with(State::new(Some(settings())));
    stage.list_all(vec![node("w1", "v1.19.16")]);
    agents_listed(&mut stage, vec![], vec![]);
    stage.state.apply(WatchEvent::Served(Some(Minor(20))));
    stage.edit(spec);
    stage
}

impl Stage {
    fn edit(&mut self, spec: Value) {
        self.version += 1;
        self.spec = spec;
        let mut object = policy(self.version, self.spec.clone(), Value::Null);
        let generation = i64::try_from(self.version).unwrap();
        object.0.as_mut().unwrap().metadata.generation = Some(generation);
        self.state.apply(WatchEvent::Policy(Event::Apply(object)));
    }

    /// What is to be written of the DaemonSet; the rest is written.
    fn agents_body(&mut self) -> Option<Body> {
        let mut found = None;
        for write in self.due() {
            match write.key {
                Key::Agents { .. } => found = Some(write.body),
                _ => self.store(write, |status| status),
            }
        }
        found
    }

    fn told_of(&mut self, event: Event<DaemonSet>) -> Effect {
        self.state.apply(WatchEvent::DaemonSet(Box::new(event))).unwrap().1
    }

    fn pod(&mut self, name: &str, ready: bool) -> Effect {
        let event = Event::Apply(agent_pod(name, ready));
        self.state.apply(WatchEvent::AgentPod(Box::new(event))).unwrap().1
    }

    fn wanted(&self) -> Value {
        let Rollout::On(wanted) = self.state.cluster.rollout(None) else { panic!("none wanted") };
        crate::controller::agents::daemon_set(&settings(), &wanted, self.state.cluster.served())
    }

    fn redirects(&self) -> Vec<(&'static str, usize)> {
        let summary = self.state.cluster.at(self.now).summary();
        let there = summary.redirects.into_iter().filter(|(_, count)| *count > 0);
        there.map(|(redirects, count)| (redirects.as_str(), count)).collect()
    }

    fn reports(&mut self, agent: Value) -> Effect {
        self.version += 1;
        let object = self.stored.get_mut("w1").unwrap();
        object.metadata.resource_version = Some(self.version.to_string());
        object.status.get_or_insert_default().agent = from(agent);
        self.told("w1", |_| ())
    }
}

fn agent_pod(name: &str, ready: bool) -> Pod {
    from(json!({
        "metadata": {"name": name, "ownerReferences": [{
            "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "sluice-agent", "uid": "d",
            "controller": true,
        }]},
        "spec": {"nodeName": "w1", "containers": []},
        "status": {"conditions": [
            {"type": "Ready", "status": if ready { "True" } else { "False" }},
        ]},
    }))
}

const SINCE: &str = "2026-01-01T00:00:00Z";

#[test]
fn nothing_is_rolled_out_before_all_that_matters_is_known() {
    let mut stage = Stage::with(State::new(Some(settings())));
    stage.list_all(vec![]);
    stage.edit(json!({"proxy": {}}));
    assert_eq!(stage.keys(), [], "what is there is not listed yet");
    agents_listed(&mut stage, vec![], vec![]);
    assert_eq!(stage.keys(), [of_policy()], "how seccomp is said is not known yet");
    stage.state.apply(WatchEvent::Served(Some(Minor(20))));
    assert_eq!(stage.keys(), [agents_key()]);
}

#[test]
fn a_controller_without_settings_rolls_nothing_out_and_waits_for_nothing() {
    let mut stage = Stage::settled(vec![node("w1", "v1.20.2")]);
    stage.state.apply(WatchEvent::Served(Some(Minor(20))));
    stage.edit(json!({"proxy": {}}));
    assert_eq!(stage.keys(), [of_policy(), of_node("w1")]);
}

#[test]
fn the_daemon_set_follows_the_policy_and_is_left_alone_else() {
    let mut stage = stage(json!({"proxy": {"maxNodeBytesPerSec": "1Mi"}}));
    let everywhere = stage.wanted();
    assert_eq!(stage.agents_body(), Some(Body::Agents(Box::new(everywhere.clone()))));
    let written = Write {
        key: agents_key(),
        body: Body::Agents(Box::new(everywhere.clone())),
        records: vec![],
    };
    stage.store(written, |status| status);
    stage.work_off();
    assert_eq!(stage.told_of(Event::Apply(stored(&everywhere, stage.version))), Effect::Unchanged);
    // The status, as each pod changes it.
    let mut reported = stored(&everywhere, 900);
    reported.status = from(json!({
        "currentNumberScheduled": 1, "desiredNumberScheduled": 1, "numberMisscheduled": 0,
        "numberReady": 1,
    }));
    assert_eq!(stage.told_of(Event::Apply(reported)), Effect::Unchanged);
    // A limit is the node's matter.
    stage.edit(json!({"proxy": {"maxNodeBytesPerSec": "2Mi"}}));
    assert_eq!(stage.agents_body(), None);
    stage.version = 1_000;
    stage.edit(json!({"proxy": {}, "nodeSelector": {"pool": "a"}}));
    let Some(Body::Agents(wanted)) = stage.agents_body() else { panic!("nothing written") };
    assert_ne!(*wanted, everywhere);
    assert_eq!(*wanted, stage.wanted());
}

#[test]
fn drift_is_put_right_and_what_the_apiserver_makes_of_it_is_not_fought() {
    let mut stage = stage(json!({"proxy": {}}));
    stage.work_off();
    let wanted = stage.wanted();
    let drifted = |version| {
        let mut object = stored(&wanted, version);
        object.spec.as_mut().unwrap().template.spec.as_mut().unwrap().host_network = None;
        object
    };
    assert_eq!(stage.told_of(Event::Apply(drifted(500))), Effect::Changed);
    let put_right = Some(Body::Agents(Box::new(wanted.clone())));
    assert_eq!(stage.agents_body(), put_right);
    // It becomes the same again, every time.
    stage.state.agents_written(Some((&wanted, drifted(501))));
    assert_eq!(stage.agents_body(), None);
    // Somebody else's change is another matter.
    let mut other = drifted(502);
    other.spec.as_mut().unwrap().template.spec.as_mut().unwrap().host_pid = Some(true);
    assert_eq!(stage.told_of(Event::Apply(other)), Effect::Changed);
    assert_eq!(stage.agents_body(), put_right);
}

#[test]
fn a_new_leader_writes_no_daemon_set_that_is_right_already() {
    let mut stage = stage(json!({"proxy": {}}));
    let there = stored(&stage.wanted(), 50);
    agents_listed(&mut stage, vec![there], vec![]);
    assert_eq!(stage.agents_body(), None);
}

#[test]
fn agents_that_nobody_wants_are_removed_and_come_back_when_wanted() {
    let mut stage = stage(json!({"proxy": {}}));
    stage.work_off();
    let wanted = stage.wanted();
    stage.edit(json!({}));
    let writes = stage.due();
    let write = writes.into_iter().find(|write| write.key == agents_key()).unwrap();
    assert_eq!(write.body, Body::NoAgents { uid: "d".to_owned() });
    assert_eq!(write.records[0].reason, "AgentsRemoved");
    stage.store(write, |status| status);
    stage.edit(json!({"proxy": {}}));
    assert_eq!(stage.agents_body(), None, "it is on its way");
    stage.told_of(Event::Delete(stored(&wanted, 2_000)));
    let writes = stage.due();
    let write = writes.into_iter().find(|write| write.key == agents_key()).unwrap();
    assert!(matches!(write.body, Body::Agents(_)));
    assert_eq!(write.records[0].reason, "AgentsRolledOut");
}

#[test]
fn a_paused_policy_keeps_its_agents_and_a_deleted_one_does_not() {
    let mut stage = stage(json!({"proxy": {}}));
    stage.work_off();
    stage.edit(json!({"proxy": {}, "nodeSelector": {"pool": "a"}, "paused": true}));
    assert_eq!(stage.agents_body(), None);
    let event = policy(5_000, json!({"proxy": "malformed"}), Value::Null);
    stage.state.apply(WatchEvent::Policy(Event::Apply(event)));
    assert_eq!(stage.agents_body(), None);
    stage.state.apply(WatchEvent::Policy(Event::Delete(policy(6_000, json!({}), Value::Null))));
    assert!(matches!(stage.agents_body(), Some(Body::NoAgents { .. })));
}

#[test]
fn a_failed_rollout_is_tried_again() {
    let mut stage = stage(json!({"proxy": {}}));
    assert!(stage.agents_body().is_some());
    stage.state.write_failed(agents_key(), stage.instant);
    assert_eq!(stage.agents_body(), None);
    let retry = stage.state.wake(stage.now, stage.instant);
    assert_eq!(retry, Some(stage.instant + RETRY_MIN));
    stage.pass(RETRY_MIN);
    assert!(stage.agents_body().is_some());
}

#[test]
fn a_report_for_off_counts_while_the_agent_is_ready() {
    let mut stage = stage(json!({"proxy": {}}));
    stage.work_off();
    let off = json!({"flag": "Absent", "since": SINCE});
    assert_eq!(stage.reports(off.clone()), Effect::Unchanged, "nobody vouches for it");
    assert_eq!(stage.redirects(), [("Unknown", 1)]);
    assert_eq!(stage.pod("a", true), Effect::Changed);
    assert_eq!(stage.redirects(), [("Off", 1)]);
    assert!(stage.keys().contains(&of_node("w1")));
    assert_eq!(stage.pod("a", true), Effect::Unchanged, "a heartbeat");
    // While one pod follows another, one that is ready is enough.
    assert_eq!(stage.pod("b", false), Effect::Unchanged);
    assert_eq!(stage.pod("b", true), Effect::Unchanged);
    let gone = Event::Delete(agent_pod("a", true));
    let effect = stage.state.apply(WatchEvent::AgentPod(Box::new(gone))).unwrap().1;
    assert_eq!((effect, stage.redirects()), (Effect::Unchanged, vec![("Off", 1)]));
    let gone = Event::Delete(agent_pod("b", true));
    let effect = stage.state.apply(WatchEvent::AgentPod(Box::new(gone))).unwrap().1;
    assert_eq!((effect, stage.redirects()), (Effect::Changed, vec![("Unknown", 1)]));
    // What a list lacks is gone.
    stage.pod("b", true);
    stage.list(|event| WatchEvent::AgentPod(Box::new(event)), vec![]);
    assert_eq!(stage.redirects(), [("Unknown", 1)]);
    // An on needs nobody to vouch for it.
    assert_eq!(
        stage.reports(json!({"flag": "Absent", "nextStart": "On", "since": SINCE})),
        Effect::Changed
    );
    assert_eq!(stage.redirects(), [("On", 1)]);
}

#[test]
fn an_agent_that_was_ready_is_believed_through_its_kubelets_restart() {
    let mut stage = stage(json!({"proxy": {}}));
    stage.pod("a", true);
    stage.work_off();
    stage.reports(json!({"flag": "Absent", "since": SINCE}));
    stage.work_off();
    // The kubelet calls it unready until it has probed it.
    assert_eq!(stage.pod("a", false), Effect::Unchanged);
    stage.work_off();
    stage.pass(GRACE - Duration::from_secs(1));
    stage.work_off();
    assert_eq!(stage.redirects(), [("Off", 1)]);
    assert_eq!(stage.pod("a", true), Effect::Unchanged);
    stage.pass(GRACE);
    stage.work_off();
    assert_eq!(stage.redirects(), [("Off", 1)]);
    // One that stays unready is believed no longer, whatever else is said of it meanwhile.
    stage.pod("a", false);
    stage.work_off();
    stage.pass(GRACE / 2);
    stage.pod("a", false);
    let wake = stage.state.wake(stage.now, stage.instant).unwrap();
    assert_eq!(wake, stage.instant + GRACE / 2);
    stage.pass(GRACE / 2);
    stage.work_off();
    assert_eq!(stage.redirects(), [("Unknown", 1)]);
    assert_eq!(stage.state.wake(stage.now, stage.instant), None);
    // Its successor has to be ready first, and one that ends says nothing any more.
    stage.pod("a", true);
    stage.pod("b", false);
    let mut ending = agent_pod("a", false);
    ending.metadata.deletion_timestamp = from(json!(SINCE));
    stage.state.apply(WatchEvent::AgentPod(Box::new(Event::Apply(ending))));
    assert_eq!(stage.redirects(), [("Unknown", 1)]);
}

#[test]
fn what_an_agent_said_of_another_machine_is_not_said_of_this_one() {
    for signed in [false, true] {
        let mut stage = stage(json!({"proxy": {"mode": "Disabled"}}));
        let machine = |number: &str, version: &str, uid: &str| {
            let mut info = json!({"kubeletVersion": version});
            if signed {
                info["bootID"] = json!(format!("boot-{number}"));
                info["machineID"] = json!(format!("machine-{number}"));
            }
            let metadata = json!({"name": "w1", "uid": uid});
            from::<NodeView>(json!({"metadata": metadata, "status": {"nodeInfo": info}}))
        };
        let report = |number: &str| {
            let mut report = json!({"flag": "Absent", "since": SINCE});
            if signed {
                report["bootID"] = json!(format!("boot-{number}"));
                report["machineID"] = json!(format!("machine-{number}"));
            }
            report
        };
        stage.node(machine("1", "v1.19.16", "uid-of-w1"));
        stage.work_off();
        stage.pod("sluice-agent-1", true);
        stage.reports(report("1"));
        stage.work_off();
        assert_eq!(stage.redirects(), [("Off", 1)]);
        // The machine is replaced under its name: another Node, an older kubelet, started with the
        // flag. Its agent has not been started yet, and garbage collection has not been by.
        stage.state.apply(WatchEvent::Node(Event::Delete(machine("1", "v1.19.16", "uid-of-w1"))));
        stage.node(machine("2", "v1.18.20", "another"));
        stage.pod("sluice-agent-1", false);
        stage.work_off();
        for _ in 0..3 {
            stage.pass(Duration::from_secs(9));
            stage.work_off();
            assert_eq!(stage.redirects(), [("Unknown", 1)], "{signed}");
            assert_eq!(stage.stored["w1"].status.as_ref().unwrap().verdict, "Blocks");
        }
        if signed {
            // Its own agent comes, and the machine starts again: until it has looked, nobody knows.
            stage.pod("sluice-agent-2", true);
            stage.reports(report("2"));
            assert_eq!(stage.redirects(), [("Off", 1)]);
            stage.node(machine("3", "v1.18.20", "another"));
            assert_eq!(stage.redirects(), [("Unknown", 1)]);
            // A word for on is kept: it can only keep the gate where it is.
            let mut on = report("2");
            on["flag"] = json!("On");
            stage.reports(on);
            assert_eq!(stage.redirects(), [("On", 1)]);
        }
    }
}

#[test]
fn a_runtime_that_still_listens_for_redirects_is_named() {
    let mut stage = stage(json!({"nodes": {"remediation": "KubeletFlag"}}));
    stage.work_off();
    stage.pod("a", true);
    let exposed = |stage: &Stage| {
        let report = stage.state.cluster.at(stage.now).policy_report("gate", None).unwrap();
        let found = report.conditions.into_iter().find(|c| c.type_ == "RuntimeExposed");
        found.map(|found| (found.status, found.message)).unwrap_or_default()
    };
    let report = |flag: &str, address: &str| {
        json!({"flag": flag, "since": SINCE, "runtime": {
            "name": "containerd", "version": "1.6.20", "streamingAddress": address,
        }})
    };
    for (flag, address, expected) in [
        ("On", "10.0.0.7:10010", "False"),
        ("Absent", "127.0.0.1:10010", "False"),
        ("Absent", "[::1]:10010", "False"),
        ("Absent", "10.0.0.7:10010", "True"),
    ] {
        stage.work_off();
        stage.reports(report(flag, address));
        assert_eq!(exposed(&stage).0, expected, "{flag} {address}");
    }
    let message = exposed(&stage).1;
    assert!(message.contains("stream_server_address = \"127.0.0.1\""), "{message}");
    assert!(stage.state.is_dirty(), "it is told");
    // Nobody asked to have anything taken off.
    stage.edit(json!({}));
    assert_eq!(exposed(&stage).0, "");
}

#[test]
fn what_becomes_of_streams_is_judged_only_where_a_policy_asks() {
    let mut stage = stage(json!({}));
    stage.work_off();
    let report = |streams| json!({"flag": "On", "since": SINCE, "streams": streams});
    stage.reports(report("Direct"));
    stage.work_off();
    assert_eq!(stage.reports(report("Relayed")), Effect::Unchanged);
    assert!(!stage.state.is_dirty());
    stage.edit(json!({"proxy": {}}));
    stage.work_off();
    let proxy = |stage: &Stage| {
        let report = stage.state.cluster.at(stage.now).policy_report("gate", None).unwrap();
        let found = report.conditions.into_iter().find(|c| c.type_ == "ProxyReady");
        found.map(|condition| condition.reason).unwrap_or_default()
    };
    assert_eq!(proxy(&stage), "AgentsNotReady");
    assert_eq!(stage.pod("a", true), Effect::Changed);
    assert_eq!(proxy(&stage), "Relaying");
    assert_eq!(stage.reports(report("Direct")), Effect::Changed);
    assert_eq!(proxy(&stage), "NodesNotRelayed");
    // Nothing that a policy is told of: the runtime's version.
    let mut more = report("Direct");
    more["runtime"] = json!({"name": "containerd", "version": "1.6.20"});
    stage.work_off();
    assert_eq!(stage.reports(more), Effect::Unchanged);
    stage.edit(json!({}));
    assert_eq!(proxy(&stage), "");
}
