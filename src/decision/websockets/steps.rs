//! What has to be done before an upgrade, so that WebSockets go on working and every component
//! starts: look at what is not known, mend the runtimes, and take the gates out that keep a
//! component from starting. The upgrade itself is everybody's last step.

use std::collections::BTreeMap;

use super::{
    cliffs::Cliff,
    gates::{PLANNED, Refusal, StreamGate},
    node::{Cell, NodeFacts, StreamingUrl, cell_at},
    safety::{EMULATION_AND_BETA, how_to_tell_gates, how_to_tell_url, locked, minor},
    survey::{Concern, Seen, Surveyed, look, of_apiserver},
};
use crate::{
    decision::{
        apiserver::Apiserver,
        steps::{Action, ArgumentChange, KUBEADM_MANIFEST, Step},
    },
    kubernetes::version::Minor,
};

/// The configuration with which kubeadm has a kubelet started.
const KUBELET_CONFIG: &str = "/var/lib/kubelet/config.yaml";

/// Where that file comes from, and who writes it again.
const KUBEADM_WRITES: &str = "kubeadm upgrade node writes this file again from the ConfigMap \
                              kubelet-config, which is every node's: give what is one node's to \
                              kubeadm as a patch (--patches, target kubeletconfiguration).";

/// The steps before an upgrade to the target; none where it is behind an apiserver, or this migration
/// is far.
pub fn steps<'a>(
    target: Minor,
    apiservers: &[Apiserver],
    nodes: impl IntoIterator<Item = Seen<'a>>,
) -> Vec<Step> {
    let newest = apiservers.iter().filter_map(|apiserver| apiserver.minor).max();
    let ahead = newest.is_none_or(|newest| newest <= target);
    if minor(Some(target), apiservers).is_none() || !ahead {
        return Vec::new();
    }
    let nodes: Vec<Surveyed<'a>> =
        nodes.into_iter().map(|node| look(node, apiservers, target)).collect();
    let mut steps = Vec::from_iter(hidden(target, apiservers));
    steps.extend(unknown(target, &nodes));
    steps.extend(runtimes(target, &nodes));
    steps.extend(apiserver_gates(target, apiservers));
    steps.extend(kubelet_gates(target, apiservers, &nodes));
    steps
}

fn step(action: Action, needed: bool, nodes: Vec<String>, message: String) -> Step {
    Step { action, needed, nodes, files: Vec::new(), changes: Vec::new(), message }
}

/// The names of those nodes for which something holds.
fn named(nodes: &[Surveyed<'_>], is: impl Fn(&Surveyed<'_>) -> bool) -> Vec<String> {
    let named = nodes.iter().filter(|node| is(node)).map(|node| node.node.name.to_owned());
    let mut named: Vec<String> = named.collect();
    named.sort();
    named
}

fn hidden(target: Minor, apiservers: &[Apiserver]) -> Option<Step> {
    let unseen = apiservers.iter().filter(|i| of_apiserver(i, target).unknown);
    let nodes: Vec<String> = unseen.map(|i| i.name.clone()).collect();
    if nodes.is_empty() && !apiservers.is_empty() {
        return None;
    }
    let message = format!(
        "The version or the command line cannot be seen: look at --feature-gates. An apiserver that \
         names one of {} there may not start on the way to {target}. {EMULATION_AND_BETA}",
        StreamGate::ALL.map(StreamGate::as_str).join(", ")
    );
    let files = vec![KUBEADM_MANIFEST.to_owned()];
    Some(Step { files, ..step(Action::LookAtApiserver, true, nodes, message) })
}

/// Nodes of which too little is known.
fn unknown(target: Minor, nodes: &[Surveyed<'_>]) -> Vec<Step> {
    let concern = |wanted| named(nodes, |node| node.concern == Some(wanted));
    let since = StreamGate::ExtendToKubelet.first();
    let url = format!(
        "From {since} on exec and attach by WebSocket fail where a runtime answers with a URL without \
         a scheme, and what these answer is not known. {}",
        how_to_tell_url()
    );
    let declares =
        "What the Node declares does not fit its kubelet: restart the kubelet, so that it \
                    declares anew."
            .to_owned();
    let gates = format!(
        "The gates of the kubelet are not known, and one of them may keep it from starting on the way \
         to {target}. {}",
        how_to_tell_gates()
    );
    let looks = [
        (Action::LookAtRuntime, concern(Concern::UrlUnknown), url, None),
        (Action::LookAtKubelet, concern(Concern::Contradiction), declares, None),
        (
            Action::LookAtKubelet,
            named(nodes, |node| node.cliffs.unknown),
            gates,
            Some(KUBELET_CONFIG),
        ),
    ];
    let looks = looks.into_iter().filter(|(_, nodes, _, _)| !nodes.is_empty());
    let looks = looks.map(|(action, nodes, message, file)| Step {
        files: file.into_iter().map(str::to_owned).collect(),
        ..step(action, true, nodes, message)
    });
    looks.collect()
}

/// Runtimes that answer with a URL without a scheme.
fn runtimes(target: Minor, nodes: &[Surveyed<'_>]) -> Vec<Step> {
    let gate = StreamGate::ExtendToKubelet;
    let (name, since) = (gate.as_str(), gate.first());
    let before = since.0.saturating_sub(1);
    let failing = named(nodes, |node| node.concern == Some(Concern::FailsNow));
    let ahead = named(nodes, |node| node.concern == Some(Concern::SchemeLess));
    let mut steps = Vec::new();
    let mut all = [failing.clone(), ahead.clone()].concat();
    all.sort();
    if all.is_empty() {
        return steps;
    }
    let only = if locked(target) {
        format!(
            " In {target} the gate {name} is planned to be locked to on, so nothing else helps."
        )
    } else {
        String::new()
    };
    steps.push(step(
        Action::UpgradeRuntime,
        true,
        all,
        format!(
            "The runtime answers a stream with a URL without a scheme, as cri-dockerd up to 0.4.3 \
             does, and a kubelet of {since} takes that for TLS: exec and attach by WebSocket fail. \
             Upgrade cri-dockerd to a version that names one, or move the node to another runtime, \
             before the kubelet runs {since}, or at once where it does.{only}"
        ),
    ));
    if locked(target) {
        return steps;
    }
    let set = |nodes: Vec<String>, when: String| {
        let message = format!(
            "Instead of upgrading the runtime: {when}. {KUBEADM_WRITES} As long as the gate is set, the \
             kubelet cannot go back to 1.{before}. It has to be taken out before {PLANNED}, where it is \
             planned to be locked."
        );
        Step {
            files: vec![KUBELET_CONFIG.to_owned()],
            changes: vec![ArgumentChange::added(format!("featureGates: {{{name}: false}}"))],
            ..step(Action::SetKubeletGate, false, nodes, message)
        }
    };
    if !failing.is_empty() {
        let when = format!("set {name}: false in the KubeletConfiguration and restart the kubelet");
        steps.push(set(failing, when));
    }
    if !ahead.is_empty() {
        let when = format!(
            "set {name}: false in the KubeletConfiguration while the kubelet is upgraded to {since}, \
             after the new kubelet is installed and before it starts, and not before: one of \
             1.{before} does not start with it"
        );
        steps.push(set(ahead, when));
    }
    steps
}

/// Gates that keep apiservers from starting.
fn apiserver_gates(target: Minor, apiservers: &[Apiserver]) -> Vec<Step> {
    let mut alike: BTreeMap<(Vec<Cliff>, Vec<ArgumentChange>), Vec<String>> = BTreeMap::new();
    for apiserver in apiservers {
        let cliffs = of_apiserver(apiserver, target).known;
        let gates: Vec<&str> = cliffs.iter().map(|cliff| cliff.set_by().0).collect();
        let arguments = apiserver.gates.as_ref().map(|known| known.arguments_without(&gates));
        let changes: Vec<ArgumentChange> =
            arguments.into_iter().flatten().map(ArgumentChange::from).collect();
        if !cliffs.is_empty() {
            alike.entry((cliffs, changes)).or_default().push(apiserver.name.clone());
        }
    }
    let steps = alike.into_iter().map(|((cliffs, changes), nodes)| {
        let message = format!(
            "{} Edit the manifest (on a kubeadm control plane {KUBEADM_MANIFEST}), one apiserver at a \
             time, and the ClusterConfiguration in the ConfigMap kubeadm-config, or the next kubeadm \
             upgrade writes it again.",
            sentences("An apiserver", &cliffs)
        );
        let files = vec![KUBEADM_MANIFEST.to_owned()];
        Step { files, changes, ..step(Action::RemoveGate, true, nodes, message) }
    });
    steps.collect()
}

/// Gates that keep kubelets from starting, and those that are not needed any more.
fn kubelet_gates(target: Minor, apiservers: &[Apiserver], nodes: &[Surveyed<'_>]) -> Vec<Step> {
    let mut alike: BTreeMap<&[Cliff], Vec<String>> = BTreeMap::new();
    for node in nodes.iter().filter(|node| !node.cliffs.known.is_empty()) {
        alike.entry(&node.cliffs.known).or_default().push(node.node.name.to_owned());
    }
    let remove = |gates: &[(&str, bool)]| {
        let line = |(gate, value): &(&str, bool)| ArgumentChange::gone(format!("{gate}: {value}"));
        gates.iter().map(line).collect::<Vec<_>>()
    };
    let files = || vec![KUBELET_CONFIG.to_owned()];
    let mut steps: Vec<Step> = Vec::new();
    for (cliffs, mut nodes) in alike {
        nodes.sort();
        let message = format!(
            "{} Take it out of featureGates in the KubeletConfiguration (and out of --feature-gates, if \
             it is there) before that kubelet is upgraded, and once its runtime answers with a URL \
             with a scheme. {KUBEADM_WRITES}",
            sentences("A kubelet", cliffs)
        );
        let gates: Vec<_> = cliffs.iter().map(Cliff::set_by).collect();
        let changes = remove(&gates);
        steps.push(Step {
            files: files(),
            changes,
            ..step(Action::RemoveKubeletGate, true, nodes, message)
        });
    }
    let gate = StreamGate::ExtendToKubelet;
    let idle = named(nodes, |node| {
        node.cliffs.known.iter().all(|cliff| cliff.gate != gate)
            && sets_in_vain(node.node.facts, apiservers, target)
    });
    if !idle.is_empty() {
        let message = format!(
            "The runtime answers with a URL with a scheme, so {} need not be off: take it out and \
             restart the kubelet. That has to be done before {PLANNED}, where the gate is planned to be \
             locked. {KUBEADM_WRITES}",
            gate.as_str()
        );
        let changes = remove(&[(gate.as_str(), false)]);
        let step = step(Action::RemoveKubeletGate, false, idle, message);
        steps.push(Step { files: files(), changes, ..step });
    }
    steps
}

/// Whether a kubelet has WebSockets turned off, and they would work.
fn sets_in_vain(facts: &NodeFacts, apiservers: &[Apiserver], target: Minor) -> bool {
    let gates = facts.gates.as_ref();
    let off = gates.and_then(|gates| gates.get(StreamGate::ExtendToKubelet.as_str()));
    let kubelet = facts.kubelet.map(|running| running.max(target));
    off == Some(false)
        && facts.url(kubelet) == StreamingUrl::Absolute
        && cell_at(facts, apiservers, target) != Cell::Unknown
}

fn sentences(who: &str, cliffs: &[Cliff]) -> String {
    let one = |cliff: &Cliff| {
        let when = match cliff.why {
            Refusal::NotThereYet => "does not start",
            Refusal::Locked | Refusal::Needed => "will not start",
            Refusal::Beyond => "may not start",
        };
        format!("{who} {when} with {}: {}.", cliff.setting(), cliff.says())
    };
    cliffs.iter().map(one).collect::<Vec<_>>().join(" ")
}
