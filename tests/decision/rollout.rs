//! Turning the gate, played through with remediators, kubelets, canaries and controllers that fail.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proptest::{prelude::*, sample::select};
use sluice::{
    api::condition,
    cluster::reasons,
    decision::{
        apiserver::Apiserver,
        change::{
            Attempt, Attempts, ChangeRequest, Phase, PolicyRef, Target, Trials, Tried, Trouble,
        },
        condition::ConditionStatus,
        migration::{STREAMING_REDIRECTS, Track},
        redirects::{
            gate_rollout::{GateScene, Member, Permission, RolloutPlan, plan},
            policy::GateWish,
        },
    },
    kubernetes::{
        feature_gates::{FeatureGates, Setting},
        version::Minor,
    },
};

const DEADLINE: u32 = 60;
const GATE: &str = "StreamingProxyRedirects";

/// One control-plane node: what its manifest says, what its apiserver runs with, and its
/// remediator.
#[derive(Clone, Debug, PartialEq)]
struct Host {
    manifest: Setting,
    runs: Setting,
    ready: bool,
    /// The remediator's journal: the attempt, what was there before, when it goes back, how it
    /// stands.
    journal: Option<Journal>,
}

#[derive(Clone, Debug, PartialEq)]
struct Journal {
    id: String,
    original: Setting,
    until: Timestamp,
    phase: Phase,
}

/// A cluster that is played, a second a turn.
struct Stage {
    hosts: BTreeMap<String, Host>,
    /// `spec.change` of each node, as it is stored.
    stored: BTreeMap<String, ChangeRequest>,
    trials: Trials,
    wish: GateWish,
    minor: u16,
    generation: i64,
    paused: bool,
    permission: Permission,
    /// Whether execs through an apiserver work, before and after it was changed.
    works: (bool, bool),
    /// Whether an apiserver starts with the new setting.
    starts: bool,
    remediators: bool,
    config: Setting,
    off_since: Option<Timestamp>,
    now: Timestamp,
    confirmed_unproven: bool,
    /// A change of something else, on another node.
    elsewhere: Option<(String, Attempt)>,
    /// Hosts without power.
    dead: Vec<String>,
}

impl Stage {
    fn new(hosts: usize, minor: u16, wish: GateWish) -> Self {
        let host = |n| {
            let (manifest, runs) = (Setting::Default, Setting::Default);
            (format!("cp{n}"), Host { manifest, runs, ready: true, journal: None })
        };
        Self {
            hosts: (1..=hosts).map(host).collect(),
            stored: BTreeMap::new(),
            trials: Trials::new(),
            wish,
            minor,
            generation: 1,
            paused: false,
            permission: Permission::Granted,
            works: (true, true),
            starts: true,
            remediators: true,
            config: Setting::Default,
            off_since: None,
            now: Timestamp::from_second(1_000_000).unwrap(),
            confirmed_unproven: false,
            elsewhere: None,
            dead: Vec::new(),
        }
    }

    fn attempts(&self) -> Attempts {
        let read = |(node, wanted): (&String, &ChangeRequest)| {
            let journal = self.hosts[node].journal.as_ref().filter(|j| j.id == wanted.id);
            let attempt = Attempt {
                wanted: wanted.clone(),
                phase: journal.map_or(Phase::Asked, |journal| journal.phase),
                reason: "R".to_owned(),
                message: "Said.".to_owned(),
            };
            (node.clone(), attempt)
        };
        self.stored.iter().map(read).chain(self.elsewhere.clone()).collect()
    }

    fn instances(&self) -> Vec<Apiserver> {
        let instance = |(name, host): (&String, &Host)| {
            let arg = match host.runs {
                Setting::Default => "--v=2".to_owned(),
                Setting::Off => format!("--feature-gates={GATE}=false"),
                Setting::On => format!("--feature-gates={GATE}=true"),
            };
            Apiserver {
                name: name.clone(),
                minor: Some(Minor(self.minor)),
                gates: Some(FeatureGates::from_args([arg.as_str()])),
                unseen: None,
            }
        };
        self.hosts.iter().map(instance).collect()
    }

    fn plan(&self) -> RolloutPlan {
        let instances = self.instances();
        let member = |apiserver: &'_ Apiserver| self.hosts[&apiserver.name].ready;
        let members: Vec<_> =
            instances.iter().map(|i| Member { apiserver: i, ready: member(i) }).collect();
        let policy_ref = PolicyRef {
            name: "cluster",
            generation: self.generation,
            deadline: DEADLINE,
            paused: self.paused,
        };
        plan(&GateScene {
            migration: &STREAMING_REDIRECTS,
            track: Track::ExtraSafe,
            wish: Some((policy_ref, self.wish)),
            permission: &self.permission,
            members: &members,
            attempts: &self.attempts(),
            asked: None,
            trials: &self.trials,
            config: Some(self.config),
            off_since: self.off_since,
            now: self.now,
        })
    }

    /// A controller looks at everything once.
    fn control(&mut self) -> RolloutPlan {
        let plan = self.plan();
        let attempts = self.attempts();
        let went_back = |attempt: &Attempt| {
            attempt.phase == Phase::RolledBack && attempt.wanted.generation == self.generation
        };
        for (node, wanted) in &plan.changes {
            let known = attempts.get(node);
            assert!(!known.is_some_and(went_back), "{node}: what went back is not forgotten");
            match wanted {
                Some(wanted) => {
                    let begun = known.is_none_or(|attempt| attempt.wanted.id != wanted.id);
                    assert!(!begun || !attempts.values().any(went_back), "{node} is begun");
                    let passed = |tried: &Tried| tried.trouble.is_none();
                    let proven = self.trials.get(&wanted.id).is_some_and(passed);
                    let before = self.stored.get(node).is_some_and(|w| w.confirmed);
                    // The way back needs no proof but an apiserver that is ready with it.
                    let off = self.wish == GateWish::Disabled;
                    self.confirmed_unproven |= off && wanted.confirmed && !before && !proven;
                    self.stored.insert(node.clone(), wanted.clone());
                }
                None => drop(self.stored.remove(node)),
            }
        }
        if let Some(trial) = &plan.trial {
            let before = trial.proves.starts_with("before.");
            let works = if before { self.works.0 } else { self.works.1 };
            let reachable = trial.through.iter().all(|name| self.hosts[name].ready);
            let trouble = (!works || !reachable)
                .then(|| Trouble { reason: "NoAnswer", message: "execs fail.".to_owned() });
            let message = "Tried.".to_owned();
            self.trials.insert(trial.proves.clone(), Tried { trouble, message, at: self.now });
        }
        if let Some(setting) = plan.config {
            assert!(!attempts.values().any(went_back), "kubeadm's configuration follows");
            self.config = setting;
        }
        plan
    }

    /// A remediator looks at what is wanted of its node, and at its own journal.
    fn change(&mut self, node: &str) {
        let wanted = self.stored.get(node).cloned();
        let (now, granted) = (self.now, self.permission == Permission::Granted);
        let host = self.hosts.get_mut(node).unwrap();
        if let Some(journal) = host.journal.as_mut().filter(|journal| !journal.phase.has_ended()) {
            let mine = wanted.as_ref().filter(|wanted| wanted.id == journal.id);
            match mine {
                Some(wanted) if wanted.confirmed => journal.phase = Phase::Confirmed,
                Some(_) if now < journal.until => {}
                _ => {
                    host.manifest = journal.original;
                    journal.phase = Phase::RolledBack;
                }
            }
            return;
        }
        let Some(wanted) = wanted else { return };
        if host.journal.as_ref().is_some_and(|journal| journal.id == wanted.id) {
            return;
        }
        let Target::Gate(setting) = wanted.target else { panic!("no kubelet here") };
        let fresh = now.duration_since(wanted.asked) <= SignedDuration::from_secs(60);
        let may = granted || self.wish == GateWish::Enabled;
        let phase = if fresh && may { Phase::Applied } else { Phase::Refused };
        let until = now + SignedDuration::from_secs(DEADLINE.into());
        host.journal = Some(Journal { id: wanted.id, original: host.manifest, until, phase });
        if phase == Phase::Applied {
            host.manifest = setting;
        }
    }

    /// A kubelet restarts an apiserver whose manifest has changed.
    fn restart(&mut self, node: &str) {
        let starts = self.starts;
        let host = self.hosts.get_mut(node).unwrap();
        if host.runs != host.manifest {
            (host.runs, host.ready) = (host.manifest, false);
        } else {
            host.ready = starts || host.manifest == Setting::Default;
        }
    }

    fn turn(&mut self) -> RolloutPlan {
        let plan = self.control();
        for node in self.hosts.keys().cloned().collect::<Vec<_>>() {
            if self.dead.contains(&node) {
                continue;
            }
            if self.remediators {
                self.change(&node);
            }
            self.restart(&node);
        }
        self.now += SignedDuration::from_secs(1);
        self.check();
        plan
    }

    fn check(&self) {
        let under_way = |node: &&String| {
            let alive = !self.dead.contains(*node);
            alive && self.hosts[*node].journal.as_ref().is_some_and(|j| !j.phase.has_ended())
        };
        assert!(self.hosts.keys().filter(under_way).count() <= 1, "two at once");
        assert!(!self.confirmed_unproven, "confirmed without proof");
    }

    fn settle(&mut self) -> RolloutPlan {
        for _ in 0..300 {
            self.turn();
        }
        self.turn()
    }

    fn manifests(&self) -> Vec<Setting> {
        self.hosts.values().map(|host| host.manifest).collect()
    }
}

fn said(plan: &RolloutPlan) -> (ConditionStatus, &'static str) {
    let progress = plan.progress.as_ref().expect("something is said");
    assert!(!progress.message.is_empty());
    assert!(reasons::of(condition::PROGRESSING).contains(&progress.reason), "{}", progress.reason);
    (progress.status, progress.reason)
}

#[test]
fn one_apiserver_after_the_other_and_kubeadm_last() {
    for (minor, wish, setting) in
        [(20, GateWish::Disabled, Setting::Off), (22, GateWish::Enabled, Setting::On)]
    {
        let mut stage = Stage::new(3, minor, wish);
        let plan = stage.settle();
        assert_eq!(said(&plan), (ConditionStatus::False, "AsWanted"));
        assert_eq!(stage.manifests(), [setting; 3]);
        assert_eq!(stage.config, setting);
        assert_eq!(stage.stored, BTreeMap::new(), "nothing is left to be asked");
        // And back again, on the same way.
        stage.wish = match wish {
            GateWish::Disabled => GateWish::Enabled,
            GateWish::Enabled => GateWish::Disabled,
        };
        stage.generation += 1;
        assert_eq!(said(&stage.settle()), (ConditionStatus::False, "AsWanted"));
        assert_eq!(
            (stage.manifests(), stage.config),
            (vec![Setting::Default; 3], Setting::Default)
        );
    }
}

#[test]
fn every_reason_not_to_go_on() {
    fn refuse(stage: &mut Stage) {
        stage.permission = Permission::Refused("old1 redirects.".to_owned());
    }
    type Case = (fn(&mut Stage), &'static str, ConditionStatus);
    let cases: [Case; 8] = [
        (refuse, "Refused", ConditionStatus::False),
        (
            |s| s.permission = Permission::Unclear("Unseen.".to_owned()),
            "ApiserversUnclear",
            ConditionStatus::True,
        ),
        (|s| s.paused = true, "Paused", ConditionStatus::False),
        (|s| s.works.0 = false, "CanaryFailed", ConditionStatus::False),
        (|s| s.works.1 = false, "ChangeRolledBack", ConditionStatus::False),
        (|s| s.starts = false, "ChangeRolledBack", ConditionStatus::False),
        (|s| s.remediators = false, "RemediatorSilent", ConditionStatus::True),
        (|s| (s.minor, s.wish) = (24, GateWish::Enabled), "GateRemoved", ConditionStatus::False),
    ];
    for (prepare, reason, holds) in cases {
        let mut stage = Stage::new(2, 20, GateWish::Disabled);
        prepare(&mut stage);
        let plan = stage.settle();
        assert_eq!(said(&plan), (holds, reason));
        assert_eq!(stage.manifests(), [Setting::Default; 2], "{reason}");
        assert_eq!(stage.config, Setting::Default, "{reason}");
        let second = &stage.hosts["cp2"];
        assert_eq!(second.journal, None, "{reason}: the second was never touched");
        let broken = reason == "ChangeRolledBack" || reason == "CanaryFailed";
        assert_eq!(plan.trouble.is_some(), broken, "{reason}");
        // Whoever has read that changes the policy.
        if reason == "ChangeRolledBack" {
            (stage.works, stage.starts) = ((true, true), true);
            assert_eq!(said(&stage.settle()).1, reason, "not by itself");
            stage.generation += 1;
            assert_eq!(said(&stage.settle()).1, "AsWanted");
        }
    }
}

#[test]
fn a_pod_of_a_manifest_that_is_gone_does_not_let_it_go_on() {
    for hosts in [1, 2] {
        let mut stage = Stage::new(hosts, 20, GateWish::Disabled);
        stage.works.1 = false;
        assert_eq!(said(&stage.settle()).1, "ChangeRolledBack");
        stage.works.1 = true;
        for _ in 0..3 {
            stage.hosts.get_mut("cp1").unwrap().runs = Setting::Off;
            assert_eq!(said(&stage.turn()), (ConditionStatus::False, "ChangeRolledBack"));
        }
        assert_eq!(said(&stage.settle()).1, "ChangeRolledBack");
        assert_eq!(stage.manifests(), vec![Setting::Default; hosts]);
        assert_eq!(stage.config, Setting::Default);
    }
}

#[test]
fn what_failed_while_nobody_could_say_so_is_not_forgotten() {
    let mut stage = Stage::new(1, 20, GateWish::Disabled);
    stage.starts = false;
    while stage.manifests() != [Setting::Off] {
        stage.turn();
    }
    // The only apiserver is down until the guard has put the original back. Then the nodes' agents
    // are not believed yet, and the remediator's pod is the last to come up.
    stage.now += SignedDuration::from_secs(i64::from(DEADLINE));
    stage.permission = Permission::Refused("old1 may redirect.".to_owned());
    let host = stage.hosts.get_mut("cp1").unwrap();
    (host.manifest, host.runs, host.ready) = (Setting::Default, Setting::Default, true);
    for _ in 0..20 {
        assert_eq!(said(&stage.control()), (ConditionStatus::True, "ChangingApiserver"));
        stage.now += SignedDuration::from_secs(1);
    }
    stage.starts = true;
    assert_eq!(said(&stage.settle()), (ConditionStatus::False, "ChangeRolledBack"));
    stage.permission = Permission::Granted;
    assert_eq!(said(&stage.settle()), (ConditionStatus::False, "ChangeRolledBack"));
    assert_eq!(stage.manifests(), [Setting::Default]);
    // What nobody has answered for so long may have been made or not.
    let mut stage = Stage::new(1, 20, GateWish::Disabled);
    stage.remediators = false;
    while stage.stored.is_empty() {
        stage.turn();
    }
    stage.now += SignedDuration::from_secs(i64::from(DEADLINE));
    stage.permission = Permission::Refused("old1 may redirect.".to_owned());
    let message = stage.control().progress.unwrap().message;
    assert!(message.contains("no remediator has said so yet"), "{message}");
}

#[test]
fn kubeadms_configuration_follows_what_has_proven_itself() {
    let mut stage = Stage::new(1, 20, GateWish::Disabled);
    // The pod of a manifest with which no apiserver has come up, and which is gone.
    stage.hosts.get_mut("cp1").unwrap().runs = Setting::Off;
    assert_eq!(said(&stage.control()).1, "AsWanted");
    assert_eq!(stage.config, Setting::Default);
    stage.settle();
    assert_eq!((stage.manifests(), stage.config), (vec![Setting::Off], Setting::Off));
    // A node in the way at the end has it wait, not forget.
    let mut other = Stage::new(1, 20, GateWish::Disabled);
    while other.hosts["cp1"].journal.as_ref().is_none_or(|j| j.phase != Phase::Confirmed) {
        other.turn();
    }
    other.permission = Permission::Refused("late1 may redirect.".to_owned());
    other.control();
    assert_eq!(other.config, Setting::Default);
    other.permission = Permission::Granted;
    other.control();
    assert_eq!(other.config, Setting::Off);
    // Somebody takes it back: it follows once it is sure that the gate is off.
    stage.config = Setting::Default;
    stage.off_since = Some(stage.now);
    assert_eq!(stage.control().next, Some(stage.now + SignedDuration::from_secs(120)));
    assert_eq!(stage.config, Setting::Default);
    stage.now += SignedDuration::from_secs(120);
    stage.control();
    assert_eq!(stage.config, Setting::Off);
}

/// The gate is off everywhere, and is to be turned on again.
fn turned_off(hosts: usize) -> Stage {
    let mut stage = Stage::new(hosts, 20, GateWish::Enabled);
    for host in stage.hosts.values_mut() {
        (host.manifest, host.runs) = (Setting::Off, Setting::Off);
    }
    stage
}

#[test]
fn the_way_back_is_open_where_execs_fail() {
    // Because the gate is off; or for another reason, which the way back does not mend.
    for after in [true, false] {
        let mut stage = turned_off(2);
        stage.works = (false, after);
        let plan = stage.settle();
        assert_eq!(said(&plan), (ConditionStatus::False, "AsWanted"), "{after}");
        assert_eq!(stage.manifests(), [Setting::Default; 2], "{after}");
    }
    // The same does not let the gate be turned off.
    let mut stage = Stage::new(2, 20, GateWish::Disabled);
    stage.works = (false, true);
    assert_eq!(said(&stage.settle()), (ConditionStatus::False, "CanaryFailed"));
    assert_eq!(stage.manifests(), [Setting::Default; 2]);
}

#[test]
fn the_way_back_is_said_to_go_on_while_execs_fail() {
    let mut stage = turned_off(1);
    stage.works = (false, false);
    let mut heard = Vec::new();
    while stage.manifests() != [Setting::Default] || !stage.stored.is_empty() {
        let plan = stage.turn();
        let canary = plan.canary.as_ref().map(|canary| canary.status);
        heard.push((said(&plan).1, canary));
    }
    assert!(heard.contains(&("CanaryFailed", Some(ConditionStatus::False))), "{heard:?}");
}

#[test]
fn the_way_back_does_not_wait_for_what_is_broken() {
    // An apiserver that does not come up; a node that blocks; a kubelet that died in its change.
    let mut stage = turned_off(3);
    stage.permission = Permission::Refused("old1 redirects.".to_owned());
    stage.hosts.get_mut("cp1").unwrap().ready = false;
    let policy_ref =
        PolicyRef { name: "cluster", generation: 1, deadline: DEADLINE, paused: false };
    let long_ago = stage.now - SignedDuration::from_secs(1_000);
    let dead = Attempt {
        wanted: ChangeRequest::new(&policy_ref, Target::KubeletFlag, long_ago),
        phase: Phase::Preparing,
        reason: "Preparing".to_owned(),
        message: "Said.".to_owned(),
    };
    stage.elsewhere = Some(("w1".to_owned(), dead));
    stage.works = (false, false);
    for _ in 0..300 {
        stage.turn();
        stage.hosts.get_mut("cp1").unwrap().ready = false;
    }
    assert_eq!(said(&stage.plan()), (ConditionStatus::True, "ApiserversNotReady"));
    assert_eq!(stage.manifests(), [Setting::Off, Setting::Default, Setting::Default]);
    // The other way each of them bars it.
    stage.wish = GateWish::Disabled;
    assert_eq!(said(&stage.plan()).1, "Refused");
    stage.permission = Permission::Granted;
    assert_eq!(said(&stage.plan()).1, "ApiserversNotReady");
    stage.hosts.get_mut("cp1").unwrap().ready = true;
    assert_eq!(said(&stage.plan()).1, "NodesChanging");
}

#[test]
fn a_change_of_which_nobody_speaks_any_more_is_said_to_be_stuck() {
    for wish in [GateWish::Disabled, GateWish::Enabled] {
        let (mut stage, new) = match wish {
            GateWish::Disabled => (Stage::new(2, 20, wish), Setting::Off),
            GateWish::Enabled => (turned_off(2), Setting::Default),
        };
        let old = stage.manifests()[1];
        while stage.manifests() != [new, old] {
            stage.turn();
        }
        // A second later it is told, and cp1 loses its power for good; its Node stays.
        stage.dead.push("cp1".to_owned());
        stage.hosts.get_mut("cp1").unwrap().ready = false;
        let asked = stage.stored["cp1"].asked;
        stage.now = asked + SignedDuration::from_secs(i64::from(DEADLINE) + 119);
        assert_eq!(stage.control().trouble, None);
        stage.now += SignedDuration::from_secs(1);
        let plan = stage.settle();
        assert_eq!(plan.trouble.as_ref().unwrap().reason, "ChangeOverdue");
        assert_eq!(said(&plan), (ConditionStatus::False, "ChangeOverdue"));
        assert!(stage.stored.contains_key("cp1"), "it is not forgotten");
        match wish {
            GateWish::Disabled => assert_eq!(stage.manifests(), [new, old], "nothing goes on"),
            GateWish::Enabled => assert_eq!(stage.manifests(), [new, new], "the other goes back"),
        }
        // What docs/reasons.md says helps.
        stage.generation += 1;
        assert_eq!(stage.control().changes.get("cp1"), Some(&None));
        let then = match wish {
            GateWish::Disabled => "ApiserversNotReady",
            GateWish::Enabled => "AsWanted",
        };
        assert_eq!(said(&stage.settle()).1, then);
    }
}

#[test]
fn what_was_refused_may_be_done_by_hand() {
    let mut stage = Stage::new(2, 20, GateWish::Disabled);
    while stage.stored.is_empty() {
        stage.control();
    }
    let id = stage.stored["cp1"].id.clone();
    let host = stage.hosts.get_mut("cp1").unwrap();
    let (original, until) = (Setting::Default, stage.now);
    host.journal = Some(Journal { id, original, until, phase: Phase::Refused });
    assert_eq!(said(&stage.settle()).1, "ChangeRefused");
    stage.hosts.get_mut("cp1").unwrap().manifest = Setting::Off;
    assert_eq!(said(&stage.settle()).1, "AsWanted");
    assert_eq!((stage.manifests(), stage.config), (vec![Setting::Off; 2], Setting::Off));
}

#[test]
fn a_node_that_stands_in_the_way_turns_back_what_is_not_proven() {
    let mut stage = Stage::new(2, 20, GateWish::Disabled);
    stage.works.1 = false;
    while stage.manifests() != [Setting::Off, Setting::Default] {
        stage.turn();
    }
    stage.permission = Permission::Refused("late1 redirects.".to_owned());
    let began = stage.now;
    while stage.manifests() != [Setting::Default; 2] {
        stage.turn();
    }
    let took = stage.now.duration_since(began);
    assert!(took < SignedDuration::from_secs(5), "not only at the deadline: {took}");
    // The pods of the manifests that are gone are no reason for kubeadm's configuration to follow.
    for host in stage.hosts.values_mut() {
        host.runs = Setting::Off;
    }
    assert_eq!(stage.control().config, None);
    // An apiserver that cannot be seen for a moment is no reason.
    let mut stage = Stage::new(2, 20, GateWish::Disabled);
    while stage.manifests() != [Setting::Off, Setting::Default] {
        stage.turn();
    }
    stage.permission = Permission::Unclear("cp1 restarts.".to_owned());
    for _ in 0..20 {
        stage.turn();
    }
    assert_eq!(stage.manifests(), [Setting::Off, Setting::Default]);
    assert_eq!(stage.hosts["cp1"].journal.as_ref().unwrap().phase, Phase::Confirmed);
}

#[test]
fn pausing_stops_between_steps() {
    let mut stage = Stage::new(2, 20, GateWish::Disabled);
    while stage.manifests() != [Setting::Off, Setting::Default] {
        stage.turn();
    }
    stage.paused = true;
    stage.generation += 1;
    let plan = stage.settle();
    assert_eq!(said(&plan), (ConditionStatus::False, "Paused"));
    assert_eq!(
        stage.manifests(),
        [Setting::Off, Setting::Default],
        "the step ends, no other begins"
    );
    assert_eq!(stage.config, Setting::Default);
    stage.paused = false;
    stage.generation += 1;
    assert_eq!(said(&stage.settle()).1, "AsWanted");
    assert_eq!(stage.manifests(), [Setting::Off; 2]);
}

/// What may go wrong in a second.
#[derive(Clone, Copy, Debug)]
enum Mishap {
    /// The controller starts again, and knows no trial.
    NewController,
    /// Nothing is done by the controller.
    NoController,
    /// Nothing is done by the remediators.
    NoRemediators,
    /// An apiserver's pod is unready.
    Unready,
    /// Its pod is that of a manifest that is gone.
    StalePod,
    /// Execs fail.
    NoExec,
    /// The verdict turns.
    Refused,
    Unclear,
    /// Somebody edits the policy.
    Edited,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn whatever_happens_it_ends_in_the_old_or_the_new_state(
        hosts in 1..4_usize,
        mishaps in prop::collection::vec(
            prop::option::weighted(0.4, select(&[
                Mishap::NewController, Mishap::NoController, Mishap::NoRemediators, Mishap::Unready,
                Mishap::StalePod, Mishap::NoExec, Mishap::Refused, Mishap::Unclear, Mishap::Edited,
            ][..])),
            0..120,
        ),
        ends_well in any::<bool>(),
    ) {
        let mut stage = Stage::new(hosts, 20, GateWish::Disabled);
        for mishap in mishaps {
            stage.works = (true, true);
            stage.permission = Permission::Granted;
            match mishap {
                Some(Mishap::NewController) => stage.trials.clear(),
                Some(Mishap::Unready) => stage.hosts.get_mut("cp1").unwrap().ready = false,
                Some(Mishap::StalePod) => stage.hosts.get_mut("cp1").unwrap().runs = Setting::Off,
                Some(Mishap::NoExec) => stage.works = (false, false),
                Some(Mishap::Refused) => {
                    stage.permission = Permission::Refused("x redirects.".to_owned());
                }
                Some(Mishap::Unclear) => stage.permission = Permission::Unclear("?".to_owned()),
                Some(Mishap::Edited) => stage.generation += 1,
                _ => {}
            }
            if !matches!(mishap, Some(Mishap::NoController)) {
                let fresh: Vec<String> = stage.stored.keys().cloned().collect();
                let plan = stage.control();
                let begun = plan.changes.iter().any(|(node, w)| w.is_some() && !fresh.contains(node));
                prop_assert!(!begun || stage.permission == Permission::Granted, "{plan:?}");
            }
            for node in stage.hosts.keys().cloned().collect::<Vec<_>>() {
                if !matches!(mishap, Some(Mishap::NoRemediators)) {
                    stage.change(&node);
                }
                stage.restart(&node);
            }
            stage.now += SignedDuration::from_secs(1);
            stage.check();
        }
        stage.works = (true, ends_well);
        stage.permission = Permission::Granted;
        stage.generation += 1;
        let plan = stage.settle();
        for (name, host) in &stage.hosts {
            prop_assert_eq!(host.runs, host.manifest, "{} runs what is written", name);
            prop_assert!(host.ready);
        }
        let off = stage.manifests().iter().filter(|setting| **setting == Setting::Off).count();
        if ends_well {
            prop_assert_eq!((said(&plan).1, off), ("AsWanted", hosts));
        } else {
            // Those that had proven themselves stay; the others are as they were.
            let proven = stage.hosts.values().filter(|host| {
                host.journal.as_ref().is_some_and(|j| j.phase == Phase::Confirmed)
            });
            prop_assert!(off <= hosts);
            prop_assert!(off == hosts || off <= proven.count() + 1);
            let ended = |host: &Host| host.journal.as_ref().is_none_or(|j| j.phase.has_ended());
            prop_assert!(stage.hosts.values().all(ended));
        }
    }
}
