//! What has to be done before an upgrade, in order: kubelets that redirect lose their flag, then
//! the gate's line goes, then the flags on which newer kubelets would not start, then the upgrade.

mod kubelet;

use std::collections::BTreeMap;

use jiff::Timestamp;

use kubelet::Kubelet;

use super::{
    flags, judge,
    node::{self, NodeFacts},
    policy::{GateWish, Owner, PolicyFacts},
    scene::Scene,
    upgrade::{self, Preview},
};
use crate::{
    decision::{
        apiserver::{Apiserver, how_to_tell},
        migration::{GateBehaviour, Migration},
        steps::{self, Action, ArgumentChange, KUBEADM_MANIFEST, Step},
    },
    kubernetes::{feature_gates::Setting, version::Minor},
};

/// The steps before an upgrade to the policy's target; none where it has none, or one that is
/// behind an apiserver.
pub fn steps<'a>(
    migration: &Migration,
    policy: &PolicyFacts,
    name: &str,
    owner: Owner<'_>,
    instances: &[Apiserver],
    nodes: impl IntoIterator<Item = (&'a str, &'a NodeFacts)> + Clone,
    now: Timestamp,
) -> Vec<Step> {
    let Some(target) = policy.target else { return Vec::new() };
    let judgement = judge(migration, policy, name, owner, instances, nodes.clone(), now);
    let plane = &judgement.plane;
    if plane.newest.is_some_and(|newest| target < newest) {
        return Vec::new();
    }
    let survey = &judgement.survey;
    let scene = Scene { migration, track: policy.track, instances, plane, survey, managed: false };
    let preview = upgrade::preview(&scene, target);
    let overrides = policy.overrides_at(now);
    let owns = owner == Owner::Policy(name);

    let mut first: BTreeMap<Kubelet, Vec<String>> = BTreeMap::new();
    let mut later: BTreeMap<Kubelet, Vec<String>> = BTreeMap::new();
    for (node, facts) in nodes {
        let judged = node::judge(migration, facts, plane, owns && overrides.hold(node, facts));
        if kubelet::has_to_trust(&scene, &preview, facts, &judged) {
            first.entry(Kubelet::Trust).or_default().push(node.to_owned());
        }
        if let Some((before_gate, what)) = kubelet::to_do(&scene, &preview, facts, &judged) {
            let group = if before_gate { &mut first } else { &mut later };
            group.entry(what).or_default().push(node.to_owned());
        }
    }
    let of_kubelets = |group: BTreeMap<Kubelet, Vec<String>>, before_gate: bool| {
        let step = |(what, nodes)| kubelet::step(migration, &preview, what, nodes, before_gate);
        group.into_iter().map(step).collect::<Vec<_>>()
    };
    let mut steps = of_kubelets(first, true);
    steps.extend(hidden(&scene, &preview));
    steps.extend(gate_lines(&scene, &preview));
    steps.extend(of_kubelets(later, false));
    steps.push(steps::upgrade(instances, target));
    steps
}

/// Apiservers of which the command line has to be known, and is not.
fn hidden(scene: &Scene<'_>, preview: &Preview) -> Option<Step> {
    let Scene { migration, track, instances, .. } = *scene;
    let behaviour = |minor: Option<Minor>| migration.apiserver_at(minor?, track);
    let removed = behaviour(Some(preview.minor)) == Some(GateBehaviour::Removed);
    let unreadable =
        |i: &Apiserver| i.gates.as_ref().is_none_or(|gates| gates.unreadable().is_some());
    let matters = |i: &&Apiserver| {
        let past = behaviour(i.minor) == Some(GateBehaviour::Removed);
        let gate_counts = preview.gate.is_off().is_none() && preview.breaking > 0;
        i.minor.is_none() && scene.plane.newest.is_none()
            || unreadable(i) && (removed && !past || gate_counts)
    };
    let nodes: Vec<String> = instances.iter().filter(matters).map(|i| i.name.clone()).collect();
    let nobody = instances.is_empty() && (removed || preview.breaking > 0);
    if nodes.is_empty() && !nobody {
        return None;
    }
    let tags = instances.iter().filter(matters).all(|i| i.unversioned().is_some());
    if let (true, Some(image)) = (tags, instances.iter().find_map(Apiserver::unversioned)) {
        return Some(Step {
            action: Action::LookAtApiserver,
            needed: true,
            nodes,
            files: vec![KUBEADM_MANIFEST.to_owned()],
            changes: Vec::new(),
            message: format!(
                "Look at the apiserver's image {image:?}, whose tag tells no version: use a tag that \
                 does, or tell it to sluice plan by --apiserver-version."
            ),
        });
    }
    let message = format!(
        "The version or the command line of {} cannot be seen: look at its --feature-gates. \
         {} in it {} at {}.{}",
        if nobody { "any apiserver" } else { "the apiserver" },
        migration.gate,
        if removed { "keeps it from starting" } else { "decides whether redirects are followed" },
        preview.minor,
        how_to_tell(instances),
    );
    Some(Step {
        action: Action::LookAtApiserver,
        needed: true,
        nodes,
        files: vec![KUBEADM_MANIFEST.to_owned()],
        changes: Vec::new(),
        message,
    })
}

/// The arguments out of which the gate has to go, or may.
fn gate_lines(scene: &Scene<'_>, preview: &Preview) -> Vec<Step> {
    let Scene { migration, track, instances, .. } = *scene;
    let there = migration.apiserver_at(preview.minor, track);
    let needed = there == Some(GateBehaviour::Removed);
    let gates: Vec<&str> = if needed { migration.gates().collect() } else { vec![migration.gate] };
    let mut alike: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for instance in instances {
        let Some(known) = &instance.gates else { continue };
        let said = match known.get(migration.gate) {
            None => Setting::Default,
            Some(false) => Setting::Off,
            Some(true) => Setting::On,
        };
        // Where it may go, it says nothing that the default does not say.
        let off = matches!(there, Some(GateBehaviour::Settable { default: false, .. }));
        let may = off && said == Setting::Off;
        // What cannot be understood is to be looked at, not to be removed.
        let must = needed && !known.named(migration.gates()).is_empty();
        if !must && !may {
            continue;
        }
        let changes: Vec<ArgumentChange> =
            known.arguments_without(&gates).into_iter().map(ArgumentChange::from).collect();
        if !changes.is_empty() {
            let key = (changes, said, instance.minor);
            alike.entry(key).or_default().push(instance.name.clone());
        }
    }
    let step =
        |((changes, said, minor), nodes): ((Vec<ArgumentChange>, Setting, Option<Minor>), _)| {
            let message = format!(
                "{} {} Edit the manifest (on a kubeadm control plane {KUBEADM_MANIFEST}), one \
             apiserver at a time, and the ClusterConfiguration in the ConfigMap kubeadm-config, or \
             the next kubeadm upgrade writes it again.",
                if needed {
                    format!(
                        "An apiserver of {} does not start while --feature-gates names {}.",
                        preview.minor,
                        gates.join(" or ")
                    )
                } else {
                    format!("{} is off at {} without it.", migration.gate, preview.minor)
                },
                when(scene, said, minor, preview.minor),
            );
            let files = vec![KUBEADM_MANIFEST.to_owned()];
            Step { action: Action::RemoveGate, needed, nodes, files, changes, message }
        };
    alike.into_iter().map(step).collect()
}

/// When the gate's line may go without turning the gate.
fn when(scene: &Scene<'_>, said: Setting, minor: Option<Minor>, target: Minor) -> String {
    let Scene { migration, track, .. } = *scene;
    let wish = match said {
        Setting::Default => return "It may go now.".to_owned(),
        Setting::Off => GateWish::Disabled,
        Setting::On => GateWish::Enabled,
    };
    let Some(minor) = minor else { return String::new() };
    let says_nothing =
        |m: &Minor| flags::setting(migration, track, *m, wish) == Some(Setting::Default);
    let first = (minor.0..=target.0).map(Minor).find(says_nothing);
    match (said, first) {
        (Setting::On, Some(_)) => "It may go as soon as nothing redirects.".to_owned(),
        (_, None) => {
            "Taking it out turns the gate off: it may go as soon as nothing redirects, and \
                      not before."
                .to_owned()
        }
        (_, Some(first)) if first == minor => "It may go now.".to_owned(),
        (_, Some(first)) => format!(
            "It goes once the apiserver runs {first}, where off is the default; before, taking it \
             out would turn the gate on."
        ),
    }
}
