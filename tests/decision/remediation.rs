//! Taking the flag off kubelets, played through with remediators and agents.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use sluice::{
    api::condition,
    cluster::reasons,
    decision::{
        change::{
            Attempt, Attempts, ChangeRequest, Phase, PolicyRef, Target, Trials, Tried, Trouble,
        },
        condition::ConditionStatus,
        redirects::{
            gate_rollout::RolloutPlan,
            remediation::{Candidate, FlagScene, Surroundings, plan},
        },
    },
};

/// A node: whether its kubelet has the flag, what its remediator has made of which attempt, and
/// whether an exec works without the flag.
#[derive(Clone, Debug)]
struct Host {
    flagged: bool,
    blocks: bool,
    works: bool,
    /// Whether its remediator refuses to begin, and with which reason.
    refuses: bool,
    /// Whether its Node is ready.
    ready: bool,
    reason: &'static str,
    journal: Option<(String, Phase)>,
}

struct Stage {
    hosts: BTreeMap<String, Host>,
    stored: BTreeMap<String, ChangeRequest>,
    trials: Trials,
    at_once: usize,
    generation: i64,
    paused: bool,
    /// A node of which no agent tells.
    unknown: Option<String>,
    /// Apiservers whose pods are not ready.
    down: Vec<&'static str>,
    now: Timestamp,
    /// The order in which nodes were asked.
    asked: Vec<String>,
}

impl Stage {
    fn new(hosts: &[(&str, Host)], at_once: usize) -> Self {
        let hosts = hosts.iter().map(|(name, host)| ((*name).to_owned(), host.clone()));
        Self {
            hosts: hosts.collect(),
            stored: BTreeMap::new(),
            trials: Trials::new(),
            at_once,
            generation: 1,
            paused: false,
            unknown: None,
            down: Vec::new(),
            now: Timestamp::from_second(1_000_000).unwrap(),
            asked: Vec::new(),
        }
    }

    fn attempts(&self) -> Attempts {
        let read = |(node, wanted): (&String, &ChangeRequest)| {
            let journal = self.hosts[node].journal.as_ref().filter(|(id, _)| *id == wanted.id);
            let phase = journal.map_or(Phase::Asked, |(_, phase)| *phase);
            let (reason, message) = (self.hosts[node].reason.to_owned(), "Said.".to_owned());
            (node.clone(), Attempt { wanted: wanted.clone(), phase, reason, message })
        };
        self.stored.iter().map(read).collect()
    }

    fn turn(&mut self) -> RolloutPlan {
        let nodes: BTreeMap<&str, Candidate> = self
            .hosts
            .iter()
            .map(|(name, host)| {
                let Host { flagged, blocks, ready, .. } = *host;
                let unknown = self.unknown.as_deref() == Some(name);
                let blocks = blocks && flagged;
                (name.as_str(), Candidate { unknown, flagged, blocks, distrusted: false, ready })
            })
            .collect();
        let paused = self.paused;
        let unready = self.hosts.iter().filter(|(_, host)| !host.ready);
        let unready: Vec<&str> = unready.map(|(name, _)| name.as_str()).collect();
        let plan = plan(&FlagScene {
            policy_ref: Some(PolicyRef {
                name: "cluster",
                generation: self.generation,
                deadline: 60,
                paused,
            }),
            at_once: self.at_once,
            nodes: &nodes,
            apiservers: &["cp1"],
            around: Surroundings { down: &self.down, unready: &unready, nodes: self.hosts.len() },
            attempts: &self.attempts(),
            trials: &self.trials,
            now: self.now,
        });
        for (node, wanted) in &plan.changes {
            let Some(wanted) = wanted else {
                self.stored.remove(node);
                continue;
            };
            if self.stored.get(node).is_none_or(|before| before.id != wanted.id) {
                assert_eq!(wanted.target, Target::KubeletFlag);
                assert!(!paused, "nothing is begun");
                self.asked.push(node.clone());
            }
            self.stored.insert(node.clone(), wanted.clone());
        }
        if let Some(trial) = &plan.trial {
            let nodes = trial.nodes.as_ref().unwrap();
            let works = nodes.iter().all(|node| self.hosts[node].works);
            let message = "execs fail.".to_owned();
            let trouble =
                (!works).then(|| Trouble { reason: "NoAnswer", message: message.clone() });
            let at = self.now;
            self.trials.insert(trial.proves.clone(), Tried { trouble, message, at });
        }
        for (node, host) in &mut self.hosts {
            let Some(wanted) = self.stored.get(node) else { continue };
            let late = self.now.duration_since(wanted.asked) > SignedDuration::from_secs(60);
            let phase = match &host.journal {
                Some((id, phase)) if *id == wanted.id => match phase {
                    Phase::Applied if wanted.confirmed => Phase::Confirmed,
                    Phase::Applied if late => Phase::RolledBack,
                    // Its agent tells a moment later that the flag is back.
                    Phase::RolledBack => {
                        host.flagged = true;
                        Phase::RolledBack
                    }
                    other => *other,
                },
                _ if host.refuses => Phase::Refused,
                _ => {
                    host.flagged = false;
                    Phase::Applied
                }
            };
            host.journal = Some((wanted.id.clone(), phase));
        }
        let changing =
            |host: &&Host| host.journal.as_ref().is_some_and(|(_, phase)| *phase == Phase::Applied);
        assert!(self.hosts.values().filter(changing).count() <= self.at_once);
        self.now += SignedDuration::from_secs(1);
        plan
    }

    fn settle(&mut self) -> (ConditionStatus, &'static str) {
        for _ in 0..200 {
            self.turn();
        }
        let said = self.turn().progress.unwrap();
        assert!(!said.message.is_empty());
        assert!(reasons::of(condition::NODES_REMEDIATED).contains(&said.reason), "{}", said.reason);
        (said.status, said.reason)
    }

    fn flagged(&self) -> Vec<&str> {
        let flagged = self.hosts.iter().filter(|(_, host)| host.flagged);
        flagged.map(|(name, _)| name.as_str()).collect()
    }
}

/// Two nodes, the first of which refuses.
fn refusing(reason: &'static str) -> Stage {
    let first = Host { refuses: true, reason, ..host(true, true, true) };
    Stage::new(&[("a", first), ("b", host(true, false, true))], 1)
}

fn host(flagged: bool, blocks: bool, works: bool) -> Host {
    Host { flagged, blocks, works, refuses: false, ready: true, reason: "R", journal: None }
}

#[test]
fn those_that_block_come_first_and_dead_flags_go_too() {
    let mut stage = Stage::new(
        &[
            ("dead", host(true, false, true)),
            ("free", host(false, false, true)),
            ("old", host(true, true, true)),
        ],
        1,
    );
    assert_eq!(stage.settle(), (ConditionStatus::True, "NoFlags"));
    assert_eq!(stage.asked, ["old", "dead"]);
    // What nobody tells of is not known to be done.
    stage.unknown = Some("free".to_owned());
    assert_eq!(stage.settle(), (ConditionStatus::Unknown, "NodesUnknown"));
    assert!(stage.flagged().is_empty() && stage.stored.is_empty());
}

#[test]
fn one_failure_ends_it_until_the_policy_changes() {
    let hosts = [
        ("a", host(true, true, false)),
        ("b", host(true, false, true)),
        ("c", host(true, false, true)),
    ];
    let mut stage = Stage::new(&hosts, 1);
    assert_eq!(stage.settle(), (ConditionStatus::False, "RemediationFailed"));
    assert_eq!(stage.asked, ["a"]);
    assert_eq!(stage.flagged(), ["a", "b", "c"], "what did not prove itself is as it was");
    let plan = stage.turn();
    let trouble = plan.trouble.unwrap();
    assert!(trouble.message.starts_with("a could not be changed: Said."), "{}", trouble.message);
    stage.hosts.get_mut("a").unwrap().works = true;
    assert_eq!(stage.settle().1, "RemediationFailed");
    stage.generation += 1;
    assert_eq!(stage.settle(), (ConditionStatus::True, "NoFlags"));
}

#[test]
fn pausing_begins_nothing_new() {
    let mut stage = Stage::new(&[("a", host(true, true, true)), ("b", host(true, true, true))], 1);
    while stage.asked.is_empty() {
        stage.turn();
    }
    stage.paused = true;
    assert_eq!(stage.settle(), (ConditionStatus::False, "Paused"));
    assert_eq!(stage.flagged(), ["b"]);
    stage.paused = false;
    assert_eq!(stage.settle(), (ConditionStatus::True, "NoFlags"));
}

#[test]
fn what_passes_is_asked_for_anew_and_what_does_not_ends_it() {
    for (reason, after) in [
        ("VerdictStale", 10),
        ("VerdictChanged", 10),
        ("VerdictUnseen", 10),
        ("KubeletUnknown", 60),
        ("SystemdUnreachable", 60),
        ("SystemdTimeout", 60),
    ] {
        let mut stage = refusing(reason);
        let mut asked_at = Vec::new();
        while asked_at.len() < 3 {
            let before = stage.asked.len();
            let (at, said) = (stage.now, stage.turn().progress.unwrap());
            assert_eq!(
                (said.status, said.reason),
                (ConditionStatus::False, "Remediating"),
                "{reason}"
            );
            if stage.asked.len() > before {
                asked_at.push(at);
            } else {
                let expected = format!("a: Said. ({reason}) It is asked again soon.");
                assert_eq!(said.message, expected);
            }
        }
        let apart = asked_at.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs());
        assert_eq!(apart.collect::<Vec<_>>(), [after, after], "{reason}");
        assert_eq!(stage.asked, ["a", "a", "a"], "the others wait");
        stage.hosts.get_mut("a").unwrap().refuses = false;
        assert_eq!(stage.settle(), (ConditionStatus::True, "NoFlags"), "{reason}");
    }
    let mut stage = refusing("FlagSourceUnknown");
    assert_eq!(stage.settle(), (ConditionStatus::False, "RemediationFailed"));
    assert_eq!(stage.asked, ["a"]);
}

#[test]
fn no_kubelet_is_restarted_into_a_cluster_with_trouble_of_its_own() {
    let hosts = ["a", "b", "c", "d"].map(|name| (name, host(true, true, true)));
    // An apiserver that is down.
    let mut stage = Stage::new(&hosts, 1);
    stage.down = vec!["cp1"];
    assert_eq!(stage.settle(), (ConditionStatus::False, "ApiserversNotReady"));
    assert_eq!(stage.asked, [""; 0]);
    stage.down.clear();
    assert_eq!(stage.settle(), (ConditionStatus::True, "NoFlags"));

    // One Node may be unready for reasons of its own: it is passed over. Two are too many here.
    let mut stage = Stage::new(&hosts, 1);
    let ready = |stage: &mut Stage, names: [&str; 2], ready| {
        names.iter().for_each(|name| stage.hosts.get_mut(*name).unwrap().ready = ready);
    };
    ready(&mut stage, ["a", "b"], false);
    assert_eq!(stage.settle(), (ConditionStatus::False, "NodesNotReady"));
    assert_eq!(stage.asked, [""; 0]);
    ready(&mut stage, ["b", "b"], true);
    assert_eq!(stage.settle(), (ConditionStatus::False, "NodesNotReady"));
    assert_eq!((stage.asked.len(), stage.flagged()), (3, vec!["a"]));
    ready(&mut stage, ["a", "a"], true);
    assert_eq!(stage.settle(), (ConditionStatus::True, "NoFlags"));
    // Of many nodes, one in ten.
    let names: Vec<String> = (10..40).map(|number| format!("n{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| (&**name, host(true, false, true))).collect();
    for (unready, said) in [(3, 27), (4, 0)] {
        let mut stage = Stage::new(&many, 1);
        names[..unready].iter().for_each(|name| stage.hosts.get_mut(name).unwrap().ready = false);
        stage.settle();
        assert_eq!(stage.asked.len(), said);
    }
}

const FLAGGED: Candidate =
    Candidate { unknown: false, flagged: true, blocks: true, distrusted: false, ready: true };

#[test]
fn a_node_that_is_gone_for_good_does_not_hold_up_all_others_in_silence() {
    let began = Timestamp::from_second(1_000_000).unwrap();
    let policy_ref =
        |generation| PolicyRef { name: "cluster", generation, deadline: 180, paused: false };
    let wanted = ChangeRequest::new(&policy_ref(1), Target::KubeletFlag, began);
    let (reason, message) = ("Preparing".to_owned(), "Said.".to_owned());
    let attempt = |phase| {
        let (wanted, reason, message) = (wanted.clone(), reason.clone(), message.clone());
        Attempt { wanted, phase, reason, message }
    };
    let candidate = |ready| Candidate { ready, ..FLAGGED };
    let nodes: BTreeMap<&str, Candidate> =
        [("old1", candidate(false)), ("old2", candidate(true))].into();
    let judge = |phase, generation, seconds| {
        plan(&FlagScene {
            policy_ref: Some(policy_ref(generation)),
            at_once: 1,
            nodes: &nodes,
            apiservers: &["cp1"],
            around: Surroundings { down: &[], unready: &["old1"], nodes: 2 },
            attempts: &[("old1".to_owned(), attempt(phase))].into(),
            trials: &Trials::new(),
            now: began + SignedDuration::from_secs(seconds),
        })
    };
    for phase in [Phase::Preparing, Phase::Applied] {
        // It may be about to say so.
        let plan = judge(phase, 1, 299);
        assert_eq!(plan.trouble, None);
        assert!(plan.next.is_some_and(|at| at <= began + SignedDuration::from_secs(300)));
        let plan = judge(phase, 1, 300);
        let trouble = plan.trouble.unwrap();
        assert_eq!(trouble.reason, "ChangeOverdue");
        assert!(trouble.message.starts_with("old1: the change had to"), "{}", trouble.message);
        assert!(plan.changes["old1"].is_some(), "not forgotten");
        assert!(!plan.changes.contains_key("old2"), "and not gone on over it");
        // Somebody has read that, and changes the policy.
        let plan = judge(phase, 2, 300);
        assert_eq!((plan.trouble, plan.changes["old1"].as_ref()), (None, None));
        assert_eq!(plan.changes["old2"].as_ref().map(|wanted| wanted.generation), Some(2));
    }
}

proptest! {
    #[test]
    fn never_more_at_once_and_all_that_can_go_go(
        hosts in prop::collection::btree_map(
            "[a-f]",
            (any::<bool>(), any::<bool>()).prop_map(|(flagged, blocks)| host(flagged, blocks, true)),
            0..6,
        ),
        at_once in 1..4_usize,
    ) {
        let hosts: Vec<(&str, Host)> =
            hosts.iter().map(|(name, host)| (name.as_str(), host.clone())).collect();
        let mut stage = Stage::new(&hosts, at_once);
        prop_assert_eq!(stage.settle(), (ConditionStatus::True, "NoFlags"));
        prop_assert!(stage.flagged().is_empty());
        let flagged = hosts.iter().filter(|(_, host)| host.flagged).count();
        prop_assert_eq!(stage.asked.len(), flagged, "each once");
    }
}

/// What works only while the node redirects is not taken away from it.
#[test]
fn a_runtime_that_the_kubelet_would_not_trust_keeps_its_redirects() {
    let judge = |nodes: &[(&'static str, bool)], others: &[(&'static str, Candidate)]| {
        let candidate = |distrusted| Candidate { distrusted, ..FLAGGED };
        let nodes = nodes.iter().map(|(name, distrusted)| (*name, candidate(*distrusted)));
        let nodes = nodes.chain(others.iter().copied());
        plan(&FlagScene {
            policy_ref: Some(PolicyRef {
                name: "cluster",
                generation: 1,
                deadline: 60,
                paused: false,
            }),
            at_once: 10,
            nodes: &nodes.collect(),
            apiservers: &["cp1"],
            around: Surroundings { down: &[], unready: &[], nodes: 2 },
            attempts: &Attempts::new(),
            trials: &Trials::new(),
            now: Timestamp::from_second(1_000_000).unwrap(),
        })
    };
    for (nodes, asked, reason) in [
        (&[("old1", true)][..], &[][..], "RuntimeNotTrusted"),
        (&[("old1", true), ("old2", true)], &[], "RuntimeNotTrusted"),
        (&[("old1", true), ("old2", false)], &["old2"], "Remediating"),
        (&[("old1", false), ("old2", false)], &["old1", "old2"], "Remediating"),
    ] {
        let plan = judge(nodes, &[]);
        let progress = plan.progress.unwrap();
        assert_eq!(
            (progress.status, progress.reason),
            (ConditionStatus::False, reason),
            "{nodes:?}"
        );
        assert_eq!(plan.changes.keys().collect::<Vec<_>>(), asked, "{nodes:?}");
        let told = progress.message.contains("enable_tls_streaming");
        assert_eq!(told, nodes.iter().any(|(_, distrusted)| *distrusted), "{}", progress.message);
    }
    // What is not known is said beside it.
    let unknown = Candidate { unknown: true, flagged: false, ..FLAGGED };
    let message = judge(&[("old1", true)], &[("old2", unknown)]).progress.unwrap().message;
    assert!(message.contains("Whether the kubelet of old2 has the flag is not known"), "{message}");
}
