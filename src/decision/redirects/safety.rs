//! May the gate be turned off, is it off, and is something wrong: the words of a policy's
//! conditions.

use super::{
    policy::{GateWish, Owner, PolicyFacts},
    refusal,
    scene::Scene,
};
use crate::decision::{
    apiserver::GateSummary,
    condition::{ConditionOutcome, ConditionStatus},
    gate::Gate,
    names::NameSummary,
};

/// `SafeToDisable`: the gate may be turned off.
///
/// Refused while any node that no override excepts could answer with a redirect, whatever its
/// skew, and while the apiservers are not all seen and alike. The worst reason wins.
pub fn safe_to_disable(scene: &Scene<'_>) -> ConditionOutcome {
    let Scene { migration, plane, survey, .. } = *scene;
    if let Some(refusal) = refusal::of_nodes(scene) {
        return refusal;
    }
    let no = |reason, message| ConditionOutcome::new(ConditionStatus::False, reason, message);
    if plane.gate == GateSummary::All(Gate::Removed) {
        return ConditionOutcome::new(
            ConditionStatus::True,
            "GateRemoved",
            format!("No apiserver has the gate {} any more.", migration.gate),
        );
    }
    if plane.is_unknown() && scene.only_managed_unseen() && survey.counts.overridden == 0 {
        return ConditionOutcome::new(
            ConditionStatus::True,
            "GateDoesNotMatter",
            format!(
                "Whether {} is on cannot be seen on {}, and no node could redirect, so nothing \
                 depends on it.",
                migration.gate,
                scene.unseen().unwrap_or_default(),
            ),
        );
    }
    if plane.is_unknown() {
        let which = scene.unseen().unwrap_or_else(|| "any apiserver".to_owned());
        return no(
            "ApiserversUnknown",
            format!(
                "No node could redirect, but the version or the gates of {which} cannot be seen. \
                 {}",
                scene.how_to_look("Look at its command line yourself before you change it."),
            ),
        );
    }
    // On the way from on to off the apiservers differ in nothing else.
    let on_its_way = scene.managed && plane.oldest == plane.newest;
    if plane.is_mixed() && !on_its_way {
        return no(
            "ApiserversMixed",
            format!(
                "No node could redirect, but the apiservers differ ({}). Wait for the rollout \
                 that is under way, or bring them to one version and one gate setting.",
                scene.differences(),
            ),
        );
    }
    if survey.counts.overridden > 0 {
        return ConditionOutcome::new(
            ConditionStatus::True,
            "OnlyOverriddenNodes",
            format!(
                "Only {} could redirect, and the policy's overrides accept that exec may fail \
                 there.",
                survey.overridden
            ),
        );
    }
    let nodes = survey.counts.nodes;
    let all = match nodes {
        0 => {
            return ConditionOutcome::new(
                ConditionStatus::True,
                "NoNodeRedirects",
                "There is no node.".to_owned(),
            );
        }
        1 => "The only node proxies".to_owned(),
        n => format!("All {n} nodes proxy"),
    };
    ConditionOutcome::new(
        ConditionStatus::True,
        "NoNodeRedirects",
        format!("{all} streams locally."),
    )
}

/// `RedirectsDisabled`: no apiserver follows redirects any more.
pub fn redirects_disabled(scene: &Scene<'_>) -> ConditionOutcome {
    let gate = scene.migration.gate;
    let on = || scene.instances_where(|i| i.gate(scene.migration, scene.track) == Gate::Enabled);
    match scene.plane.gate {
        GateSummary::All(Gate::Removed) => ConditionOutcome::new(
            ConditionStatus::True,
            "GateRemoved",
            format!("No apiserver has the gate {gate} any more."),
        ),
        GateSummary::All(Gate::Disabled) => ConditionOutcome::new(
            ConditionStatus::True,
            "GateOff",
            format!("{gate} is off on every apiserver."),
        ),
        GateSummary::All(Gate::Enabled) => ConditionOutcome::new(
            ConditionStatus::False,
            "GateOn",
            format!("{gate} is on on {}.", on()),
        ),
        GateSummary::Mixed => ConditionOutcome::new(
            ConditionStatus::False,
            "GateMixed",
            format!("{gate} is on on {} and off elsewhere.", on()),
        ),
        GateSummary::All(Gate::Unknown) => {
            let hidden = match scene.unseen() {
                Some(which) => format!("Whether {gate} is on cannot be seen on {which}."),
                None => "No apiserver can be seen.".to_owned(),
            };
            // One that is on is enough to know, whatever the others are.
            if scene.plane.on_somewhere {
                let message = format!("{gate} is on on {}. {hidden}", on());
                return ConditionOutcome::new(ConditionStatus::False, "GateOn", message);
            }
            ConditionOutcome::new(ConditionStatus::Unknown, "GateUnknown", hidden)
        }
    }
}

/// `Progressing`: the gate is on its way to what the policy wants.
pub fn progressing(
    scene: &Scene<'_>,
    policy: &PolicyFacts,
    owns: bool,
    safe: &ConditionOutcome,
) -> ConditionOutcome {
    let no =
        |reason, message: String| ConditionOutcome::new(ConditionStatus::False, reason, message);
    let gate = scene.migration.gate;
    if !owns {
        let message = match policy.gate {
            None => "The policy does not speak about the gate.",
            Some(_) => "The policy does not own the gate.",
        };
        return no("NotOwner", message.to_owned());
    }
    let done = matches!(
        (policy.gate, scene.plane.gate),
        (None, _)
            | (Some(GateWish::Disabled), GateSummary::All(Gate::Disabled | Gate::Removed))
            | (Some(GateWish::Enabled), GateSummary::All(Gate::Enabled))
    );
    if done {
        return no("AsWanted", format!("{gate} is what the policy wants."));
    }
    if policy.paused {
        return no("Paused", "The policy is paused.".to_owned());
    }
    let gone = scene.instances_where(|i| i.gate(scene.migration, scene.track) == Gate::Removed);
    if policy.gate == Some(GateWish::Enabled) && !gone.is_empty() {
        // To set it there, as an admin who waits for it might, keeps the apiserver from starting.
        return no(
            "GateRemoved",
            format!(
                "{gone} {} no gate {gate} any more, so it cannot be turned on. Let the policy \
                 want it Disabled, or not speak of it.",
                if gone.count() == 1 { "has" } else { "have" },
            ),
        );
    }
    if scene.plane.gate == GateSummary::Mixed {
        let wanted = match policy.gate {
            Some(GateWish::Enabled) => "on",
            _ => "off",
        };
        return ConditionOutcome::new(
            ConditionStatus::True,
            "ApiserversDiffer",
            format!("{gate} is {wanted} on some apiservers only."),
        );
    }
    match policy.gate {
        Some(GateWish::Enabled) if scene.plane.gate == GateSummary::All(Gate::Unknown) => {
            no("GateUnknown", redirects_disabled(scene).message)
        }
        Some(GateWish::Enabled) => {
            no("WaitingForAdmin", format!("{gate} is off; the apiservers' --feature-gates decide."))
        }
        _ if safe.status == ConditionStatus::True
            && scene.plane.gate == GateSummary::All(Gate::Unknown) =>
        {
            no("GateUnknown", safe.message.clone())
        }
        _ if safe.status == ConditionStatus::True => no(
            "WaitingForAdmin",
            format!(
                "{gate} may be turned off: start every apiserver with \
                 --feature-gates={gate}=false."
            ),
        ),
        _ => no("Refused", safe.message.clone()),
    }
}

/// `Degraded`: something is wrong now, with the cluster or with the policy. The worst reason wins,
/// and every problem is in the message, each on a line of its own.
pub fn degraded(
    scene: &Scene<'_>,
    policy: &PolicyFacts,
    name: &str,
    owner: Owner<'_>,
    expired: &[&str],
) -> ConditionOutcome {
    let Scene { migration, plane, survey, .. } = *scene;
    let gate = migration.gate;
    let mut problems: Vec<(&'static str, String)> = Vec::new();
    if plane.off_somewhere && !survey.on.is_empty() {
        let off = scene.instances_where(|i| i.gate(migration, scene.track).is_off() == Some(true));
        problems.push((
            "StreamsFail",
            format!(
                "Exec, attach and port-forward to {} fail through {off}, where {gate} is off: \
                 take --{} off these kubelets, or turn the gate on again.",
                survey.on, migration.flag
            ),
        ));
    }
    let loose = scene.instances_where(|i| {
        i.validates_redirects(migration, scene.track) == Some(false)
            && i.gate(migration, scene.track) == Gate::Enabled
    });
    if !loose.is_empty() {
        problems.push((
            "RedirectsNotValidated",
            format!(
                "{loose} follow{} redirects to any host: a compromised node can make the \
                 apiserver connect anywhere. Turn {} on until the redirects are gone.",
                loose.verb_s(),
                migration.validation_gate
            ),
        ));
    }
    for sentence in &policy.invalid {
        problems.push(("SpecInvalid", sentence.clone()));
    }
    if let (Some(target), Some(newest)) = (policy.target, plane.newest)
        && target < newest
    {
        problems.push((
            "TargetVersionBehind",
            format!("spec.targetVersion {target} is behind the apiserver's {newest}."),
        ));
    }
    if policy.gate.is_some() {
        match owner {
            Owner::Policy(other) if other != name => problems.push((
                "GateOwnedByOther",
                format!(
                    "StreamingPolicy {other} is older and owns the gate; what this one wants of \
                     it, and its overrides, are not heard."
                ),
            )),
            Owner::Unreadable(other) => problems.push((
                "GateOwnerUnreadable",
                format!(
                    "StreamingPolicy {other} is older and cannot be read: it may own the gate, so \
                     nobody does until it is mended or deleted."
                ),
            )),
            _ => {}
        }
    }
    if !survey.newer.is_empty() {
        problems.push((
            "KubeletNewer",
            format!(
                "The kubelet of {} is newer than an apiserver, which no version skew policy \
                 permits: upgrade the apiservers next.",
                survey.newer
            ),
        ));
    }
    if !expired.is_empty() {
        let nodes: NameSummary<'_> = expired.iter().copied().collect();
        problems.push((
            "OverrideExpired",
            format!("The override for {nodes} has expired and no longer counts."),
        ));
    }
    match problems.first() {
        None => ConditionOutcome::new(
            ConditionStatus::False,
            "AsExpected",
            "Nothing is wrong.".to_owned(),
        ),
        Some((reason, _)) => {
            let reason = *reason;
            let all: Vec<String> = problems.into_iter().map(|(_, message)| message).collect();
            ConditionOutcome::new(ConditionStatus::True, reason, all.join("\n"))
        }
    }
}
