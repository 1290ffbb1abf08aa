//! Turning the gate, one apiserver at a time: what is asked of which node next.
//!
//! Nothing is remembered here: everything follows from what the nodes' remediators say, from the
//! command lines that the apiservers run with, and from what the canary found, so that a controller
//! that starts again goes on where the last one was.
//!
//! Turning the gate on is the way back, which mends execs that fail. So nothing bars it that may be
//! broken just then: not execs, not a node that stands in the way, not another apiserver or a node
//! that is down. Each apiserver that can be changed is, and keeps the gate once it is ready with it.

mod inputs;

use jiff::SignedDuration;

use super::policy::GateWish;
use crate::{
    decision::{
        change::{
            self, ANSWERS, Attempt, ChangeRequest, Phase, PolicyRef, Proof, TRY_AGAIN, Target,
            Trial, Trouble,
        },
        condition::{ConditionOutcome, ConditionStatus},
        names::NameSummary,
    },
    kubernetes::feature_gates::Setting,
};
pub use inputs::{GateScene, Member, Permission, RolloutPlan};

/// The exec and port-forward that have to work before anything is changed are tried again after
/// this long where they do not.
const BASELINE_AGAIN: SignedDuration = SignedDuration::from_secs(60);

/// What pods have shown for so long they do not show by mistake: a kubelet looks at each of its
/// static pods once a minute, if not before, and replaces the mirror pod of another manifest.
const LASTS: SignedDuration = SignedDuration::from_secs(120);

/// What the execs are called that have to work before anything is changed, as a trial.
pub fn baseline(policy: &str, generation: i64) -> String {
    format!("before.{policy}.{generation}")
}

/// What is done next, and said.
pub fn plan(scene: &GateScene<'_>) -> RolloutPlan {
    let mut plan = RolloutPlan::default();
    let wanted_still = |node: &str, attempt: &Attempt| {
        let Some((policy_ref, wish)) = &scene.wish else { return false };
        let member = scene.member(node);
        // While its pod is away the version is unknown, and nothing speaks against it.
        let setting = member.and_then(|member| scene.setting(member.apiserver, *wish));
        attempt.wanted.policy == policy_ref.name
            && setting.is_none_or(|setting| attempt.wanted.target == Target::Gate(setting))
    };
    let mut under_way = None;
    for (node, attempt) in scene.gates() {
        if !attempt.is_under_way() {
            continue;
        }
        if scene.wish.is_some_and(|(policy_ref, _)| attempt.is_withdrawn(&policy_ref, scene.now)) {
            plan.changes.insert(node.clone(), None);
            continue;
        }
        let refused = matches!(scene.permission, Permission::Refused(_))
            && scene.wish.is_some_and(|(_, wish)| wish == GateWish::Disabled)
            && !attempt.wanted.confirmed;
        if refused && attempt.is_overdue(scene.now) && wanted_still(node, attempt) {
            // It has gone back by itself, and nobody has said so yet, such as while no apiserver
            // was there. To take it away now would be to forget that it failed.
            plan.changes.insert(node.clone(), Some(attempt.wanted.clone()));
            let message = match attempt.phase {
                Phase::Applied => format!("{node}: the original comes back by itself."),
                _ => format!(
                    "{node}: whatever was written goes back by itself; no remediator has said so yet."
                ),
            };
            return plan.waits("ChangingApiserver", message);
        }
        if refused || !wanted_still(node, attempt) {
            plan.changes.insert(node.clone(), None);
            continue;
        }
        if attempt.is_lost(scene.now) {
            let message = lost(node, attempt);
            plan.trouble.get_or_insert(Trouble { reason: "ChangeOverdue", message });
            if scene.wish.is_some_and(|(_, wish)| wish == GateWish::Enabled) {
                plan.changes.insert(node.clone(), Some(attempt.wanted.clone()));
                continue;
            }
        }
        under_way.get_or_insert((node, attempt));
    }
    let Some((policy_ref, wish)) = &scene.wish else {
        for (node, _) in scene.gates().filter(|(_, attempt)| !attempt.is_under_way()) {
            plan.changes.insert(node.clone(), None);
        }
        return plan;
    };
    if let Some((node, attempt)) = under_way {
        return go_on(scene, plan, *wish, node, attempt);
    }
    let failed = scene.gates().find(|(node, attempt)| {
        let there = scene.member(node);
        let as_wished = there.is_some_and(|member| scene.is_as_wished(member.apiserver, *wish));
        // Somebody may have done by hand what was refused. What was made and went back stops
        // everything whatever its pod shows: that of the manifest that is gone stays for a while.
        attempt.blocks(policy_ref) && !(attempt.phase == Phase::Refused && as_wished)
    });
    if let Some((node, attempt)) = failed {
        let message = failure(node, attempt);
        let reason = match attempt.phase {
            Phase::RolledBack => "ChangeRolledBack",
            Phase::Refused => "ChangeRefused",
            _ => "ChangeFailed",
        };
        plan.trouble = Some(Trouble { reason, message: message.clone() });
        return plan.stops(reason, message);
    }
    begin(scene, plan, policy_ref, *wish)
}

/// What went wrong, and what to do about it.
fn failure(node: &str, attempt: &Attempt) -> String {
    format!(
        "{node}: {} ({}) Nothing more is changed. When the cause is mended, have it tried again by \
         any change of the policy's spec, such as pausing it and going on.",
        attempt.message, attempt.reason
    )
}

/// What is said of a change of which nobody speaks any more.
pub(super) fn lost(node: &str, attempt: &Attempt) -> String {
    let deadline = SignedDuration::from_secs(attempt.wanted.deadline.into());
    format!(
        "{node}: the change had to prove itself or go back within {} s of {}, and no remediator says \
         what became of it: the node, its kubelet or its remediator may be down. Bring it back. Or have \
         the change withdrawn by any change of the policy's spec, such as pausing it and going on: \
         its remediator then puts the original back when it returns.",
        deadline.as_secs(),
        attempt.wanted.asked.strftime("%FT%TZ"),
    )
}

/// A change is under way on this node, and on no other that answers.
fn go_on(
    scene: &GateScene<'_>,
    mut plan: RolloutPlan,
    wish: GateWish,
    node: &str,
    attempt: &Attempt,
) -> RolloutPlan {
    let now = scene.now;
    let wanted = attempt.asked_again(now);
    let Target::Gate(setting) = wanted.target else { return plan };
    let goes = scene.goes(setting);
    let keep = |plan: &mut RolloutPlan, wanted| plan.changes.insert(node.to_owned(), Some(wanted));
    if let Some(trouble) = plan.trouble.clone().filter(|_| attempt.is_lost(now)) {
        keep(&mut plan, wanted);
        return plan.stops(trouble.reason, trouble.message);
    }
    if let Some(at) = attempt.lost_at() {
        plan.looks_at(at);
    }
    if wanted.confirmed {
        keep(&mut plan, wanted);
        return plan.waits("ChangingApiserver", format!("{node}: {goes} has proven itself."));
    }
    match attempt.phase {
        Phase::Asked => {
            if let Some(at) = attempt.next_ask(now) {
                plan.looks_at(at);
            }
            keep(&mut plan, wanted);
            if attempt.is_silent(now) {
                return plan.waits(
                    "RemediatorSilent",
                    format!(
                        "{node}: no remediator answers. Look for its pod there: the chart brings it \
                         with remediators.apiserver.enabled=true."
                    ),
                );
            }
            return plan.waits("ChangingApiserver", format!("{node}: {goes} is asked for."));
        }
        Phase::Applied => {}
        _ => {
            keep(&mut plan, wanted);
            let message = format!("{node}: {goes} is about to be written.");
            return plan.waits("ChangingApiserver", message);
        }
    }
    let member = scene.member(node);
    let back = attempt.wanted.deadline;
    let runs =
        member.is_some_and(|member| member.ready && scene.is_as_wished(member.apiserver, wish));
    if !runs {
        keep(&mut plan, wanted);
        return plan.waits(
            "ChangingApiserver",
            format!(
                "{node}: {goes} is written; the apiserver has to become ready with it within \
                 {back} s, or the original comes back."
            ),
        );
    }
    let id = wanted.id.clone();
    let trouble = match change::proof(scene.trials, &id, TRY_AGAIN, now) {
        Proof::Passed => {
            let proven = &scene.trials[&id].message;
            plan.canary = Some(passed(proven));
            keep(&mut plan, ChangeRequest { confirmed: true, ..wanted });
            let message = format!("{node}: {goes} has proven itself.");
            return plan.waits("ChangingApiserver", message);
        }
        Proof::Due(before) => {
            plan.trial = Some(Trial { proves: id, through: vec![node.to_owned()], nodes: None });
            before
        }
        Proof::Failed(trouble, at) => {
            plan.looks_at(at);
            Some(trouble)
        }
    };
    if wish == GateWish::Enabled {
        // No exec fails because the gate is on: one that does, fails for another reason.
        let enough = SignedDuration::from_secs((back / 2).into());
        if now >= wanted.asked + enough {
            plan.canary = trouble.as_ref().map(failed);
            keep(&mut plan, ChangeRequest { confirmed: true, ..wanted });
            let message = format!(
                "{node}: the apiserver is ready with {goes}, which stays whatever else is wrong."
            );
            return plan.waits("ChangingApiserver", message);
        }
        plan.looks_at(wanted.asked + enough);
    }
    keep(&mut plan, wanted);
    let Some(trouble) = trouble else {
        return plan.waits(
            "ChangingApiserver",
            format!("{node}: the apiserver runs with {goes}; execs through it are tried."),
        );
    };
    plan.canary = Some(failed(&trouble));
    let then = match wish {
        GateWish::Disabled => "The original comes back unless that ends.",
        GateWish::Enabled => "It stays on all the same.",
    };
    plan.waits(
        "CanaryFailed",
        format!("{node}: the apiserver runs with {goes}, but {} {then}", trouble.message),
    )
}

/// No change is under way: whether one is begun.
fn begin(
    scene: &GateScene<'_>,
    mut plan: RolloutPlan,
    policy_ref: &PolicyRef<'_>,
    wish: GateWish,
) -> RolloutPlan {
    let (now, gate) = (scene.now, scene.migration.gate);
    let others: Vec<_> =
        scene.members.iter().filter(|m| !scene.is_as_wished(m.apiserver, wish)).collect();
    if others.is_empty() && !scene.members.is_empty() {
        if let Some(trouble) = plan.trouble.clone() {
            return plan.stops(trouble.reason, trouble.message);
        }
        // An apiserver of the newest version decides: it is where the others are going.
        let newest = scene.members.iter().max_by_key(|member| member.apiserver.minor);
        let setting = newest.and_then(|member| scene.setting(member.apiserver, wish));
        let differs = |setting: &Setting| scene.config.is_some_and(|is| is != *setting);
        // For a minute a pod may show what has just gone back, and be ready with that: it alone
        // does not say that the gate is off for good.
        let proven = scene.gates().any(|(_, attempt)| attempt.phase == Phase::Confirmed);
        let lasts = scene.off_since.map(|since| since + LASTS);
        let refused = matches!(scene.permission, Permission::Refused(_))
            || !(proven || lasts.is_some_and(|at| at <= now));
        let stays = policy_ref.paused || (refused && setting == Some(Setting::Off));
        plan.config = setting.filter(|setting| !stays && differs(setting));
        if let Some(at) = lasts.filter(|at| stays && *at > now) {
            plan.looks_at(at);
        }
        // Until it has followed, what has proven itself is not forgotten.
        if policy_ref.paused || !setting.as_ref().is_some_and(differs) {
            plan.changes.extend(scene.gates().map(|(node, _)| (node.clone(), None)));
        }
        return plan.stops("AsWanted", format!("{gate} is what the policy wants."));
    }
    if policy_ref.paused {
        return plan.stops("Paused", "The policy is paused.".to_owned());
    }
    match scene.permission {
        Permission::Refused(why) if wish == GateWish::Disabled => {
            return plan.stops("Refused", why.clone());
        }
        Permission::Unclear(why) => return plan.waits("ApiserversUnclear", why.clone()),
        Permission::Refused(_) | Permission::Granted => {}
    }
    // What bars one apiserver from the way back bars no other.
    let open: Vec<_> =
        others.iter().copied().filter(|member| scene.is_open(member, wish)).collect();
    let (looked_at, others): (Vec<_>, _) = match wish {
        GateWish::Disabled => (scene.members.iter().collect(), others),
        GateWish::Enabled if open.is_empty() => (others.clone(), others),
        GateWish::Enabled => (open.clone(), open),
    };
    let hidden: NameSummary<'_> = looked_at
        .iter()
        .filter(|member| member.apiserver.unseen.is_some() || member.apiserver.gates.is_none())
        .map(|member| member.apiserver.name.as_str())
        .collect();
    if !hidden.is_empty() {
        return plan.stops(
            "NotStaticPods",
            format!(
                "{hidden} cannot be changed by spec.apply StaticPod: no static pod of a kubelet \
                 shows its command line. Turn the gate there yourself, with spec.apply Observe."
            ),
        );
    }
    let unable: NameSummary<'_> = others
        .iter()
        .filter(|member| scene.setting(member.apiserver, wish).is_none())
        .map(|member| member.apiserver.name.as_str())
        .collect();
    if !unable.is_empty() {
        let message = format!("{gate} cannot be set as the policy wants it on {unable}.");
        return plan.stops("GateRemoved", message);
    }
    if wish == GateWish::Enabled
        && let Some(trouble) = plan.trouble.clone()
        && others.iter().all(|member| !scene.is_open(member, wish))
    {
        return plan.stops(trouble.reason, trouble.message);
    }
    let unready: NameSummary<'_> = looked_at
        .iter()
        .filter(|member| !member.ready)
        .map(|member| member.apiserver.name.as_str())
        .collect();
    if !unready.is_empty() {
        let message = format!("Waiting for the apiserver on {unready} to be ready.");
        return plan.waits("ApiserversNotReady", message);
    }
    // One change at a time in the whole cluster: a kubelet that restarts answers no exec.
    let mut busy = scene.attempts.iter().filter(|(_, attempt)| {
        attempt.is_under_way() && !(wish == GateWish::Enabled && attempt.is_lost(now))
    });
    if let Some(node) = scene.asked.or_else(|| busy.next().map(|(node, _)| node.as_str())) {
        return plan.waits("NodesChanging", format!("Waiting for the change of {node} to end."));
    }
    let proves = baseline(policy_ref.name, policy_ref.generation);
    let trouble = match change::proof(scene.trials, &proves, BASELINE_AGAIN, now) {
        Proof::Passed => {
            plan.canary = Some(passed(&scene.trials[&proves].message));
            None
        }
        Proof::Due(before) => {
            let through = scene.members.iter().map(|member| member.apiserver.name.clone());
            plan.trial = Some(Trial { proves, through: through.collect(), nodes: None });
            if before.is_none() {
                let message = "Execs are tried before anything is changed.".to_owned();
                return plan.waits("CanaryRunning", message);
            }
            before
        }
        Proof::Failed(trouble, at) => {
            plan.looks_at(at);
            Some(trouble)
        }
    };
    plan.canary = trouble.as_ref().map(failed).or(plan.canary.take());
    // The way back is what mends execs that fail because the gate is off.
    if let Some(trouble) = trouble.filter(|_| wish == GateWish::Disabled) {
        let message = format!("Nothing has been changed, but already {}", trouble.message);
        plan.trouble = Some(Trouble { reason: "CanaryFailed", message: message.clone() });
        return plan.stops("CanaryFailed", message);
    }
    let Some(next) = others.first() else { return plan };
    let node = &next.apiserver.name;
    let Some(setting) = scene.setting(next.apiserver, wish) else { return plan };
    let broken = scene.attempts.get(node).filter(|attempt| {
        // What became of a kubelet is forgotten before the way back is barred.
        wish == GateWish::Disabled
            && attempt.blocks(policy_ref)
            && attempt.wanted.target == Target::KubeletFlag
    });
    if let Some(attempt) = broken {
        return plan.stops("ChangeFailed", failure(node, attempt));
    }
    let refused = scene.attempts.get(node).and_then(|attempt| Some((attempt, attempt.anew_at()?)));
    if let Some((attempt, at)) = refused.filter(|(_, at)| now < *at) {
        plan.looks_at(at);
        return plan.waits("ChangingApiserver", asked_anew(node, attempt));
    }
    let wanted = ChangeRequest::new(policy_ref, Target::Gate(setting), now);
    plan.looks_at(now + ANSWERS);
    plan.changes.insert(node.clone(), Some(wanted));
    let message = format!("{node}: {} is asked for.", scene.goes(setting));
    plan.waits("ChangingApiserver", message)
}

/// A change that was refused for something that passes.
pub(super) fn asked_anew(node: &str, attempt: &Attempt) -> String {
    format!("{node}: {} ({}) It is asked again soon.", attempt.message, attempt.reason)
}

pub(super) fn passed(message: &str) -> ConditionOutcome {
    ConditionOutcome::new(ConditionStatus::True, "Answered", message.to_owned())
}

pub(super) fn failed(trouble: &Trouble) -> ConditionOutcome {
    ConditionOutcome::new(ConditionStatus::False, trouble.reason, capitalised(&trouble.message))
}

/// A message that stands alone.
fn capitalised(message: &str) -> String {
    let mut chars = message.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
