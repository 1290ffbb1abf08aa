//! Changes: asked for once, proven, confirmed, and told.

use super::*;
use crate::{
    api::{Change as Wish, GateSetting},
    controller::changes::{ChangesSettings, Published as Flags},
    decision::change::{Phase, Tried, Trouble},
};

const OFF: &str = "--feature-gates=StreamingProxyRedirects=false";

pub(super) fn kubeadm(text: &str, version: u64) -> k8s_openapi::api::core::v1::ConfigMap {
    from(json!({
        "metadata": {"name": "kubeadm-config", "resourceVersion": version.to_string()},
        "data": {"ClusterConfiguration": text},
    }))
}

fn pod(flag: &str, ready: bool) -> Pod {
    let mut pod = apiserver(flag);
    let status = if ready { "True" } else { "False" };
    pod.status = from(json!({"conditions": [{"type": "Ready", "status": status}]}));
    pod
}

const CONFIGURATION: &str = "apiServer:\n  extraArgs:\n    authorization-mode: Node,RBAC\n\
                             apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\n";

/// One apiserver on `cp1`, and a policy that has Sluice turn the gate off; all is written.
fn stage() -> Stage {
    let flags = Flags { namespace: "sluice-system".to_owned(), name: "sluice-flags".to_owned() };
    let settings = ChangesSettings { flags: Some(flags), kubeadm: true };
    let mut stage = Stage::with(State::new(None).with_changes(settings));
    stage.list_all(vec![node("cp1", "v1.20.2"), node("w1", "v1.20.2")]);
    stage.list(|event| WatchEvent::KubeadmConfig(Box::new(event)), vec![kubeadm(CONFIGURATION, 1)]);
    stage.list(|event| WatchEvent::Flags(Box::new(event)), vec![]);
    stage.told_pod("", true);
    stage.spec = json!({"streamingProxyRedirects": "Disabled", "apply": "StaticPod"});
    stage.version += 1;
    let object = policy(stage.version, stage.spec.clone(), Value::Null);
    stage.state.apply(WatchEvent::Policy(Event::Apply(object)));
    stage.work_off();
    stage
}

impl Stage {
    fn told_pod(&mut self, flag: &str, ready: bool) -> Effect {
        let event = Event::Apply(pod(flag, ready));
        self.state.apply(WatchEvent::Pod(Box::new(event))).unwrap().1
    }

    /// The trial that is due passes, or fails.
    fn tries(&mut self, works: bool) {
        let due = self.state.trial(self.now).expect("a trial is due");
        assert_eq!(self.state.trial(self.now), None, "one at a time");
        let trouble = (!works)
            .then(|| Trouble { reason: "NoAnswer", message: "exec to w1 fails.".to_owned() });
        let tried = Tried { trouble, message: "Tried.".to_owned(), at: self.now };
        self.state.apply(WatchEvent::Tried(due.trial.proves, tried));
        self.work_off();
    }

    /// The node's remediator says how far it has come.
    fn remediator(&mut self, phase: &str) {
        self.version += 1;
        let object = self.stored.get_mut("cp1").unwrap();
        object.metadata.resource_version = Some(self.version.to_string());
        let id = object.spec.change.as_ref().expect("a change").id.clone();
        let report = json!({
            "id": id, "phase": phase, "reason": phase, "message": "Said.",
            "since": "2026-01-01T00:00:00Z",
        });
        object.status.get_or_insert_default().change = from(report);
        self.told("cp1", |_| ());
        self.work_off();
    }

    /// What is stored of the node comes again.
    fn remediator_again(&mut self) {
        self.version += 1;
        let version = self.version.to_string();
        self.stored.get_mut("cp1").unwrap().metadata.resource_version = Some(version);
        self.told("cp1", |_| ());
        self.work_off();
    }

    fn wish(&self) -> Option<&Wish> {
        self.stored["cp1"].spec.change.as_deref()
    }

    fn said(&self, kind: &str) -> (String, String) {
        let policy = &self.state.cluster.policies()["gate"];
        let conditions = &policy.status.as_ref().unwrap().conditions;
        let found = conditions.iter().find(|c| c.type_ == kind).expect(kind);
        (found.status.clone(), found.reason.clone())
    }

    fn events(&mut self) -> Vec<String> {
        self.state.told().into_iter().map(|told| told.reason).collect()
    }
}

fn brief(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn a_trial_also_goes_the_way_of_users() {
    for (kubeadms, policys, front) in [
        (None, None, None),
        (Some("lb.example.com:6443"), None, Some("https://lb.example.com:6443")),
        (Some("lb.example.com:6443"), Some("None"), None),
        (Some("lb.example.com:6443"), Some("https://other"), Some("https://other")),
        (None, Some("https://other"), Some("https://other")),
    ] {
        let mut stage = stage();
        if let Some(endpoint) = kubeadms {
            let text = format!("{CONFIGURATION}controlPlaneEndpoint: {endpoint}\n");
            let event = Event::Apply(kubeadm(&text, 2));
            stage.state.apply(WatchEvent::KubeadmConfig(Box::new(event)));
        }
        stage.spec["canary"] = json!({"endpoint": policys});
        stage.version += 1;
        let object = policy(stage.version, stage.spec.clone(), Value::Null);
        stage.state.apply(WatchEvent::Policy(Event::Apply(object)));
        stage.work_off();
        let due = stage.state.trial(stage.now).expect("a trial is due");
        assert_eq!(due.front.as_deref(), front, "{kubeadms:?} {policys:?}");
    }
}

#[test]
fn asked_once_proven_confirmed_and_kubeadm_follows() {
    let mut stage = stage();
    assert_eq!(stage.wish(), None, "nothing before the canary");
    assert_eq!(stage.said("Progressing"), brief("True", "CanaryRunning"));
    stage.tries(true);
    let wish = stage.wish().expect("asked").clone();
    assert_eq!((wish.gate, wish.confirmed), (Some(GateSetting::Disabled), false));
    assert_eq!(wish.verdict.generation, 1);
    assert_eq!(stage.stored["w1"].spec.change, None);
    stage.pass(Duration::from_secs(3));
    assert_eq!(stage.work_off(), 0, "not again and again");

    stage.remediator("Preparing");
    stage.remediator("Applied");
    assert_eq!(stage.state.trial(stage.now), None, "the old apiserver proves nothing");
    assert_eq!(stage.told_pod(OFF, false), Effect::Changed);
    stage.work_off();
    assert_eq!(stage.state.trial(stage.now), None, "it is not ready");
    assert_eq!(stage.told_pod(OFF, true), Effect::Changed);
    assert_eq!(stage.told_pod(OFF, true), Effect::Unchanged);
    stage.work_off();
    stage.tries(true);
    assert!(stage.wish().is_some_and(|now| now.id == wish.id && now.confirmed));
    assert_eq!(stage.said("CanaryPassed"), brief("True", "Answered"));

    stage.remediator("Confirmed");
    assert_eq!(stage.wish(), None, "nothing is left to ask");
    assert_eq!(stage.said("Progressing"), brief("False", "AsWanted"));
    assert_eq!(stage.said("RedirectsDisabled"), brief("True", "GateOff"));
    assert_eq!(stage.said("CanaryPassed"), brief("True", "Answered"), "the last word stays");
    let expected = ["ChangeAsked", "ChangeApplied", "ChangeConfirmed"].map(|r| [r, r]).concat();
    assert_eq!(stage.events(), expected, "to the policy and to the Node");
    // kubeadm's configuration says it, and our own ConfigMap.
    let told = Event::Apply(kubeadm(CONFIGURATION, 900));
    let effect = stage.state.apply(WatchEvent::KubeadmConfig(Box::new(told))).unwrap().1;
    assert_eq!(effect, Effect::Changed, "it had followed, and somebody has taken it back");
    assert_eq!(stage.keys(), [], "not before it is sure what the apiservers run with");
    assert!(stage.state.wake(stage.now, stage.instant).is_some());
    stage.pass(Duration::from_secs(120));
    assert_eq!(stage.keys(), [Key::Kubeadm]);
}

#[test]
fn a_change_that_goes_back_is_said_and_not_repeated() {
    let mut stage = stage();
    stage.tries(true);
    stage.remediator("Applied");
    stage.told_pod(OFF, true);
    stage.work_off();
    stage.tries(false);
    assert_eq!(stage.said("Progressing"), brief("True", "CanaryFailed"));
    assert_eq!(stage.said("CanaryPassed"), brief("False", "NoAnswer"));
    assert!(stage.state.wake(stage.now, stage.instant).is_some(), "it is tried again");
    stage.told_pod("", true);
    stage.remediator("RolledBack");
    assert_eq!(stage.said("Degraded"), brief("True", "ChangeRolledBack"));
    assert_eq!(stage.said("Progressing"), brief("False", "ChangeRolledBack"));
    let id = stage.wish().expect("it stays to be seen").id.clone();
    for _ in 0..20 {
        stage.pass(Duration::from_secs(30));
        assert_eq!(stage.work_off(), 0);
    }
    assert_eq!(stage.wish().map(|wish| wish.id.as_str()), Some(id.as_str()));
}

#[test]
fn a_new_controller_goes_on_where_the_last_one_was() {
    let mut old = stage();
    old.tries(true);
    old.remediator("Applied");
    let object = DeserializeGuard(Ok(old.stored["cp1"].clone()));

    let mut new = stage();
    new.stored.insert("cp1".to_owned(), old.stored["cp1"].clone());
    new.version = 500;
    new.list(WatchEvent::StreamingNode, vec![object]);
    new.work_off();
    assert_eq!(new.wish(), old.wish(), "the same attempt");
    new.told_pod(OFF, true);
    new.work_off();
    new.tries(true);
    assert!(new.wish().is_some_and(|wish| wish.confirmed));
}

#[test]
fn a_new_controller_does_not_try_again_what_is_proven() {
    let mut old = stage();
    old.tries(true);
    assert_eq!(old.said("CanaryPassed"), brief("True", "Answered"));
    let status = old.state.cluster.policies()["gate"].status.clone().unwrap();
    for (later, generation, remediates, asked) in [
        (0, 1, false, true),
        (599, 1, false, true),
        // It is old, about another spec, or may be about a kubelet.
        (600, 1, false, false),
        (0, 2, false, false),
        (0, 1, true, false),
    ] {
        let mut new = Stage::with(State::new(None).with_changes(ChangesSettings::default()));
        new.version = 500;
        new.spec = old.spec.clone();
        if remediates {
            new.spec["nodes"] = json!({"remediation": "KubeletFlag"});
        }
        new.pass(Duration::from_secs(later));
        new.list(|event| WatchEvent::Pod(Box::new(event)), vec![pod("", true)]);
        new.list(WatchEvent::Endpoints, vec![from(json!({"metadata": {"name": "kubernetes"}}))]);
        let mut status = status.clone();
        for condition in &mut status.conditions {
            let canary = condition.type_ == "CanaryPassed";
            condition.observed_generation = Some(if canary { 1 } else { generation });
        }
        let mut known = policy(400, new.spec.clone(), json!(status));
        known.0.as_mut().unwrap().metadata.generation = Some(generation);
        new.list(WatchEvent::Policy, vec![known]);
        new.list(WatchEvent::StreamingNode, vec![]);
        new.list(WatchEvent::Node, vec![node("cp1", "v1.20.2"), node("w1", "v1.20.2")]);
        new.due().into_iter().for_each(|write| new.store(write, |status| status));
        let wish = new.state.changes.plans.changes.get("cp1");
        assert_eq!(wish.is_some(), asked, "{later} {generation} {remediates}");
        assert_eq!(new.state.trial(new.now).is_none(), asked, "{later} {generation} {remediates}");
    }
}

#[test]
fn trials_that_nobody_speaks_of_any_more_are_forgotten() {
    let mut stage = stage();
    stage.tries(true);
    for generation in 2..10 {
        stage.version += 1;
        let mut object = policy(stage.version, stage.spec.clone(), Value::Null);
        object.0.as_mut().unwrap().metadata.generation = Some(generation);
        stage.state.apply(WatchEvent::Policy(Event::Apply(object)));
        let tried = Tried { trouble: None, message: "Tried.".to_owned(), at: stage.now };
        let proves = crate::decision::redirects::gate_rollout::baseline("gate", generation);
        stage.state.apply(WatchEvent::Tried(proves, tried));
        stage.due();
    }
    assert_eq!(stage.state.changes.trials().len(), 1);
    stage.state.apply(WatchEvent::Policy(Event::Delete(policy(6_000, json!({}), Value::Null))));
    stage.due();
    assert_eq!(stage.state.changes.trials().len(), 0);
}

#[test]
fn a_spec_follows_from_a_version_of_the_object() {
    let mut stage = stage();
    stage.tries(false);
    // What somebody says of the node meanwhile has another version, and is looked at first.
    stage.told("cp1", |object| object.metadata.resource_version = Some("700".to_owned()));
    stage.version = 700;
    let tried = Tried { trouble: None, message: "Tried.".to_owned(), at: stage.now };
    let proves = crate::decision::redirects::gate_rollout::baseline("gate", 1);
    stage.state.apply(WatchEvent::Tried(proves, tried));
    let writes = stage.due();
    let mut specs = writes.iter().filter_map(|write| match &write.body {
        Body::Node { spec: Some((spec, _)), version, .. } => {
            Some((spec.change.is_some(), *version))
        }
        _ => None,
    });
    assert_eq!(specs.next(), Some((true, Some(700))));
}

#[test]
fn the_way_back_while_nodes_redirect_and_the_gate_is_off() {
    let mut stage = stage();
    stage.told_pod(OFF, true);
    stage.list(WatchEvent::Node, vec![node("cp1", "v1.20.2"), node("w1", "v1.18.20")]);
    stage.spec = json!({"streamingProxyRedirects": "Enabled", "apply": "StaticPod"});
    stage.version += 1;
    let mut object = policy(stage.version, stage.spec.clone(), Value::Null);
    object.0.as_mut().unwrap().metadata.generation = Some(2);
    stage.state.apply(WatchEvent::Policy(Event::Apply(object)));
    stage.work_off();
    stage.tries(false);
    assert_eq!(stage.said("CanaryPassed"), brief("False", "NoAnswer"));
    let wish = stage.wish().expect("the gate is turned on again");
    assert_eq!(wish.gate, Some(GateSetting::Default));
    assert_eq!(stage.said("Progressing"), brief("True", "ChangingApiserver"));
}

#[test]
fn what_a_remediator_said_on_another_machine_is_not_said_of_this_one() {
    let mut stage = stage();
    let on = |boot: &str, machine: &str| -> NodeView {
        from(json!({
            "metadata": {"name": "cp1", "uid": "uid-of-cp1"},
            "status": {"nodeInfo": {
                "kubeletVersion": "v1.20.2", "bootID": boot, "machineID": machine,
            }},
        }))
    };
    let phase = |stage: &Stage| stage.state.cluster.attempts()["cp1"].phase;
    stage.node(on("b", "m"));
    stage.tries(true);
    stage.remediator("Applied");
    assert_eq!(phase(&stage), Phase::Asked, "nobody knows which machine says so");
    let says = |stage: &mut Stage, boot: &str| {
        let status = stage.stored.get_mut("cp1").unwrap().status.as_mut().unwrap();
        let report = status.change.as_mut().unwrap();
        (report.boot_id, report.machine_id) = (Some(boot.to_owned()), Some("m".to_owned()));
        stage.remediator_again();
    };
    says(&mut stage, "b");
    assert_eq!(phase(&stage), Phase::Applied);
    // It starts again, and its remediator has not spoken yet; or another one has its name.
    for other in [on("c", "m"), on("b", "n")] {
        stage.node(other);
        assert_eq!(phase(&stage), Phase::Asked);
        stage.node(on("b", "m"));
        assert_eq!(phase(&stage), Phase::Applied);
    }
    stage.node(on("c", "m"));
    says(&mut stage, "c");
    assert_eq!(phase(&stage), Phase::Applied);
}

#[test]
fn a_lost_watch_asks_for_nothing_and_takes_nothing_back() {
    let mut stage = stage();
    stage.tries(true);
    stage.remediator("Applied");
    let wish = stage.wish().cloned();
    stage.state.apply(WatchEvent::Lost(Kind::Pod, true));
    stage.told_pod(OFF, true);
    stage.work_off();
    assert_eq!(stage.state.trial(stage.now), None);
    assert_eq!(stage.wish(), wish.as_ref());
    // A policy that no longer wants it is another matter.
    stage.state.apply(WatchEvent::Lost(Kind::Pod, false));
    stage.state.apply(WatchEvent::Policy(Event::Delete(policy(6_000, json!({}), Value::Null))));
    stage.work_off();
    assert_eq!(stage.wish(), None);
}

#[test]
fn the_flags_are_published_and_put_right() {
    let mut stage = stage();
    let told = Event::Apply(from(json!({"metadata": {"name": "sluice-flags"}, "data": {}})));
    let effect = stage.state.apply(WatchEvent::Flags(Box::new(told))).unwrap().1;
    assert_eq!(effect, Effect::Changed, "they were there");
    let writes = stage.due();
    let [Write { body: Body::Flags(data), .. }] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!(data["safe-to-disable"], "true");
    assert_eq!(data["kube-apiserver.feature-gates"], "StreamingProxyRedirects=false");
    assert_eq!(data["kubelet.remove"], "--redirect-container-streaming");
}
