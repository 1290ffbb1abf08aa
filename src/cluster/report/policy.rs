//! The status of a `StreamingPolicy`.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{
    super::{Told, reasons},
    Moment, seconds,
};
use crate::{
    api::{
        ApiserverStatus, ApiserversStatus, BlockingNode, NodeCounts, StreamingPolicyStatus,
        UpgradeStatus, condition,
    },
    decision::{
        apiserver::{Apiserver, Unseen},
        condition::{ConditionOutcome, ConditionStatus},
        migration::{STREAMING_REDIRECTS, Track},
        redirects::{Judgement, policy::PolicyFacts, upgrade::Preview},
        websockets::safety::{self, Finding, Judgement as WebSockets, WebSocketReason},
    },
};

/// So many apiservers are listed.
const INSTANCES_LISTED: usize = 10;

impl Moment<'_> {
    /// The status that a policy ought to have. Conditions keep their transition times from the
    /// status that it has. `None` where there is no such policy.
    ///
    /// `told` is what it is told of the changes that it wants.
    pub fn policy_report(&self, name: &str, told: Option<&Told>) -> Option<StreamingPolicyStatus> {
        let Self { cluster, now, .. } = *self;
        let policy = cluster.policies.get(name)?;
        let unreadable = PolicyFacts::default();
        let facts = policy.content.as_ref().map_or(&unreadable, |content| &content.facts);
        let mut judgement = self.judgement(name, facts);
        let mut proxy = cluster.proxy_ready(name, policy);
        let mut websockets = cluster.websockets(name, facts, now);
        if let Some(websockets) = &websockets {
            degrade(&mut judgement, websockets);
            refuse_upgrade(&mut judgement, websockets);
        }
        if let Some(told) = told {
            take(&mut judgement, told);
        }
        if let Err(why) = &policy.content {
            let message = format!(
                "The policy cannot be read ({why}). Mend it: nothing is permitted by a policy that \
                 nobody understands."
            );
            websockets = websockets.map(|judged| unsafe_by("PolicyUnreadable", &message, judged));
            judgement = refuse(judgement, "PolicyUnreadable", message);
        }
        if let Some(kind) = cluster.lost {
            let message = format!(
                "The {kind} of the cluster can no longer be watched, so what is known of them may \
                 be old. Look at the controller's log and its ClusterRole."
            );
            judgement = refuse(judgement, "WatchLost", message.clone());
            websockets = websockets.map(|judged| unsafe_by("WatchLost", &message, judged));
            proxy = proxy.map(|_| ConditionOutcome {
                status: ConditionStatus::Unknown,
                reason: "WatchLost",
                message,
            });
        }
        let old = policy.status.as_ref().map_or(&[][..], |status| &status.conditions);
        let mut status =
            status(&judgement, &cluster.instances, facts.track, policy.generation, old, now);
        if let Some(judged) = &websockets {
            refuse_version(&mut status.upgrades, judged);
        }
        let none = Told::default();
        let exposed = cluster.exposed(policy);
        let told =
            told.filter(|_| cluster.lost.is_none() && policy.content.is_ok()).unwrap_or(&none);
        let more = [
            (condition::WEBSOCKETS_SAFE, websockets.as_ref().map(|judged| &judged.outcome)),
            (condition::PROXY_READY, proxy.as_ref()),
            (condition::CANARY_PASSED, told.canary.as_ref()),
            (condition::NODES_REMEDIATED, told.remediated.as_ref()),
            (condition::RUNTIME_EXPOSED, exposed.as_ref()),
        ];
        status.conditions.extend(more.into_iter().filter_map(|(kind, outcome)| {
            Some(condition(kind, outcome?, policy.generation, old, now))
        }));
        // What the canary found last stays, where the policy still has something changed.
        if told.canary.is_none() && facts.changes_something() {
            let last = old.iter().find(|c| c.type_ == condition::CANARY_PASSED);
            status.conditions.extend(last.cloned());
        }
        Some(status)
    }
}

/// Puts what is changed, and what went wrong with that, into the words of the conditions.
fn take(judgement: &mut Judgement<'_>, told: &Told) {
    if let Some(progressing) = &told.progressing {
        judgement.progressing = progressing.clone();
    }
    let Some(first) = told.troubles.first() else { return };
    let mut messages: Vec<&str> = told.troubles.iter().map(|t| t.message.as_str()).collect();
    let degraded = &mut judgement.degraded;
    // Streams that fail now are worse than what does not go on.
    let reason = match degraded.status {
        ConditionStatus::True => {
            messages.insert(0, &degraded.message);
            degraded.reason
        }
        ConditionStatus::False | ConditionStatus::Unknown => first.reason,
    };
    let message = messages.join("\n");
    *degraded = ConditionOutcome { status: ConditionStatus::True, reason, message };
}

/// Says of WebSockets that fail now, beside what else is wrong.
fn degrade(judgement: &mut Judgement<'_>, websockets: &WebSockets) {
    let fails = |finding: &&Finding| finding.reason == WebSocketReason::WebSocketsFail;
    let Some(Finding { reason, message }) = websockets.findings.iter().find(fails) else { return };
    let degraded = &mut judgement.degraded;
    let (reason, message) = match degraded.status {
        // Streams that all fail are worse than WebSockets alone.
        ConditionStatus::True if degraded.reason == "StreamsFail" => {
            (degraded.reason, format!("{} {message}", degraded.message))
        }
        ConditionStatus::True => (reason.as_str(), format!("{message} {}", degraded.message)),
        ConditionStatus::False | ConditionStatus::Unknown => (reason.as_str(), message.clone()),
    };
    *degraded = ConditionOutcome { status: ConditionStatus::True, reason, message };
}

/// An upgrade that one migration permits and the other does not is not safe.
fn refuse_upgrade(judgement: &mut Judgement<'_>, websockets: &WebSockets) {
    let Some(message) = websockets.against_upgrade() else { return };
    let outcome = &mut judgement.upgrade_safe;
    if outcome.status == ConditionStatus::True {
        let status = ConditionStatus::False;
        *outcome = ConditionOutcome { status, reason: safety::UNSAFE, message };
    } else {
        outcome.message = format!("{} {message}", outcome.message);
    }
}

/// The same of the version ahead that was judged, where it is among those that are listed.
fn refuse_version(upgrades: &mut [UpgradeStatus], websockets: &WebSockets) {
    let there = websockets.minor.to_string();
    let listed = upgrades.iter_mut().filter(|upgrade| upgrade.version == there);
    for (upgrade, message) in listed.zip(websockets.against_upgrade()) {
        let known = if upgrade.safe { None } else { Some(upgrade.message.as_str()) };
        upgrade.message = known.into_iter().chain([&*message]).collect::<Vec<_>>().join(" ");
        upgrade.safe = false;
        upgrade.reasons.push(safety::UNSAFE.to_owned());
    }
}

/// The same verdict, refused for a reason that outweighs everything judged.
fn unsafe_by(reason: &'static str, message: &str, mut judged: WebSockets) -> WebSockets {
    let (status, message) = (ConditionStatus::False, message.to_owned());
    judged.outcome = ConditionOutcome { status, reason, message };
    judged
}

/// Turns a judgement into a refusal for a reason that outweighs everything judged.
fn refuse<'a>(
    mut judgement: Judgement<'a>,
    reason: &'static str,
    message: String,
) -> Judgement<'a> {
    let outcome = |status| ConditionOutcome { status, reason, message: message.clone() };
    judgement.safe_to_disable = outcome(ConditionStatus::False);
    judgement.upgrade_safe = outcome(ConditionStatus::False);
    judgement.progressing = outcome(ConditionStatus::False);
    judgement.degraded = outcome(ConditionStatus::True);
    judgement
}

fn status(
    judgement: &Judgement<'_>,
    instances: &[Apiserver],
    track: Track,
    generation: Option<i64>,
    old: &[Condition],
    now: Timestamp,
) -> StreamingPolicyStatus {
    let conditions = [
        (condition::SAFE_TO_DISABLE, &judgement.safe_to_disable),
        (condition::REDIRECTS_DISABLED, &judgement.redirects_disabled),
        (condition::UPGRADE_SAFE, &judgement.upgrade_safe),
        (condition::PROGRESSING, &judgement.progressing),
        (condition::DEGRADED, &judgement.degraded),
    ];
    let survey = &judgement.survey;
    let counts = survey.counts;
    StreamingPolicyStatus {
        observed_generation: generation,
        conditions: conditions
            .map(|(kind, outcome)| condition(kind, outcome, generation, old, now))
            .into(),
        gate: judgement.plane.gate.as_str().to_owned(),
        nodes: NodeCounts {
            total: count(counts.nodes),
            redirecting: count(counts.redirecting),
            lagging: count(counts.lagging),
            unknown: count(counts.unknown),
            blocking: count(counts.blocking),
            overridden: count(counts.overridden),
        },
        apiservers: ApiserversStatus {
            oldest: judgement.plane.oldest.map(|minor| minor.to_string()),
            newest: judgement.plane.newest.map(|minor| minor.to_string()),
            count: count(instances.len()),
            instances: instances
                .iter()
                .take(INSTANCES_LISTED)
                .map(|instance| apiserver(instance, track))
                .collect(),
        },
        blocking: survey
            .worst
            .iter()
            .map(|(reason, name)| BlockingNode {
                name: (*name).to_owned(),
                reason: reason.as_str().to_owned(),
            })
            .collect(),
        blocking_more: count(counts.blocking - survey.worst.len()),
        upgrades: judgement.upgrades.iter().map(upgrade).collect(),
    }
}

fn condition(
    kind: &str,
    outcome: &ConditionOutcome,
    generation: Option<i64>,
    old: &[Condition],
    now: Timestamp,
) -> Condition {
    debug_assert!(
        reasons::of(kind).contains(&outcome.reason),
        "{} is not listed as a reason of {kind}",
        outcome.reason
    );
    let status = outcome.status.as_str();
    let unchanged = old.iter().find(|c| c.type_ == kind && c.status == status);
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: outcome.reason.to_owned(),
        message: outcome.message.clone(),
        observed_generation: generation,
        last_transition_time: unchanged
            .map_or_else(|| seconds(now), |c| c.last_transition_time.clone()),
    }
}

fn apiserver(instance: &Apiserver, track: Track) -> ApiserverStatus {
    let gate = instance.gate(&STREAMING_REDIRECTS, track);
    ApiserverStatus {
        name: instance.name.clone(),
        version: instance.minor.map(|minor| minor.to_string()),
        gate: gate.as_str().to_owned(),
        validates_redirects: instance.validates_redirects(&STREAMING_REDIRECTS, track),
        unseen: instance.unseen.as_ref().map(Unseen::reason).map(str::to_owned),
    }
}

fn upgrade(preview: &Preview) -> UpgradeStatus {
    UpgradeStatus {
        version: preview.minor.to_string(),
        gate_default: preview.default.as_str().to_owned(),
        gate_settable: preview.settable,
        gate: preview.gate.as_str().to_owned(),
        safe: preview.is_safe(),
        breaking_nodes: count(preview.breaking),
        reasons: preview.findings.iter().map(|f| f.reason.as_str().to_owned()).collect(),
        message: preview.message(),
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
