//! What must come out, told independently of `sluice::decision`: the history of the flag and the
//! gate as the Kubernetes changelogs and KEP-1558 have it, and the rules of the decision.

use std::collections::BTreeSet;

use sluice::{
    decision::{migration::Track, redirects::evidence::Source},
    kubernetes::arguments::kubelet::FlagValue::{self, Absent, Off, On, Unreadable},
};

use crate::cluster::{Cluster, Instance, Node, Seen};

/// The gate where nobody sets it; `None` where there is no gate any more.
pub fn default_gate(track: Track, apiserver: u16) -> Option<bool> {
    match (track, apiserver) {
        (_, ..=20) => Some(true),
        (Track::ExtraSafe, 21) => Some(true),
        (Track::Standard, 21) => Some(false),
        (Track::ExtraSafe, 22 | 23) => Some(false),
        _ => None,
    }
}

/// What the gate is on one apiserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gate {
    On,
    Unknown,
    Off,
    Gone,
}

pub fn gate(track: Track, apiserver: Option<u16>, seen: Seen) -> Gate {
    let Some(apiserver) = apiserver else { return Gate::Unknown };
    match (default_gate(track, apiserver), seen) {
        (None, _) => Gate::Gone,
        (_, Seen::Unreadable | Seen::Invisible | Seen::Managed) => Gate::Unknown,
        (_, Seen::True) | (Some(true), Seen::Unset) => Gate::On,
        (_, Seen::False) | (Some(false), Seen::Unset) => Gate::Off,
    }
}

/// Could the kubelet answer with a redirect?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirects {
    Yes,
    Maybe,
    No,
}

pub fn redirects(kubelet: Option<u16>, claims: &[(Source, FlagValue)]) -> Redirects {
    let says = |wanted| claims.iter().any(|(_, says)| *says == wanted);
    match kubelet {
        Some(..=10) => Redirects::Yes,
        Some(20..) => Redirects::No,
        Some(11..=19) | None if says(On) => Redirects::Yes,
        Some(11..=19) if says(Unreadable) || claims.is_empty() => Redirects::Maybe,
        Some(11..=19) => Redirects::No,
        None => Redirects::Maybe,
    }
}

/// Somebody says on and somebody says otherwise, where the version leaves that open.
pub fn contradictory(kubelet: Option<u16>, claims: &[(Source, FlagValue)]) -> bool {
    let on = claims.iter().any(|(_, says)| *says == On);
    let off = claims.iter().any(|(_, says)| matches!(says, Off | Absent));
    matches!(kubelet, Some(11..) | None) && on && off
}

/// Is the flag on the command line, with whatever value? `None` where nobody knows.
///
/// Off and absent are the same for redirects and differ at the cliff: there the most trusted word
/// counts, and of two words of one source the worse. What the next start takes from the environment
/// files is there, whatever runs now.
pub fn flag_given(claims: &[(Source, FlagValue)]) -> Option<bool> {
    let by = |source| claims.iter().filter(move |c| c.0 == source).map(|c| c.1);
    let all = || claims.iter().map(|c| c.1);
    if all().any(|says| says == On) {
        return Some(true);
    }
    if claims.is_empty() || all().any(|says| says == Unreadable) {
        return None;
    }
    if by(Source::EnvFiles).any(|says| says == Off) {
        return Some(true);
    }
    let trusted = [Source::Agent, Source::NodeArgs, Source::EnvFiles, Source::Annotation];
    let best = trusted.into_iter().find(|source| by(*source).next().is_some())?;
    Some(by(best).any(|says| says == Off))
}

/// Does the node itself show the flag, though its kubelet has reported a version without it? Only
/// what the next start takes its arguments from counts, and a command line that cannot last.
fn flag_comes_back(claims: &[(Source, FlagValue)]) -> Option<bool> {
    let shown = claims.iter().filter(|(source, _)| *source != Source::Annotation);
    if shown.clone().any(|(_, says)| matches!(says, On | Off)) {
        return Some(true);
    }
    let garbled =
        |(source, says): &(Source, FlagValue)| *source != Source::Agent && *says == Unreadable;
    if shown.clone().any(garbled) { None } else { Some(false) }
}

pub fn newest(instances: &[Instance]) -> Option<u16> {
    instances.iter().filter_map(|i| i.minor).max()
}

/// Two minors or more behind the newest apiserver.
pub fn lagging(kubelet: Option<u16>, newest: Option<u16>) -> bool {
    matches!((kubelet, newest), (Some(kubelet), Some(newest)) if kubelet + 2 <= newest)
}

/// The status and the reason of `SafeToDisable`.
pub fn safe_to_disable(cluster: &Cluster) -> (&'static str, &'static str) {
    let newest = newest(&cluster.instances);
    let any = |is: &dyn Fn(&Node) -> bool| {
        cluster.nodes.iter().any(|node| !cluster.excepted(node) && is(node))
    };
    let yes = |n: &Node| redirects(n.kubelet, &n.claims) == Redirects::Yes;
    if any(&|n| yes(n) && lagging(n.kubelet, newest)) {
        return ("False", "NodesRedirectWhileLagging");
    }
    if any(&|n| yes(n) && !contradictory(n.kubelet, &n.claims)) {
        return ("False", "NodesRedirect");
    }
    if any(&yes) {
        return ("False", "EvidenceContradictory");
    }
    if any(&|n| redirects(n.kubelet, &n.claims) == Redirects::Maybe) {
        return ("False", "NodesUnknown");
    }
    let gates = || cluster.instances.iter().map(|i| gate(cluster.track, i.minor, i.seen));
    let Some(first) = cluster.instances.first() else { return ("False", "ApiserversUnknown") };
    if gates().all(|gate| gate == Gate::Gone) {
        return ("True", "GateRemoved");
    }
    let safe = |n: &Node| redirects(n.kubelet, &n.claims) == Redirects::No;
    if gates().any(|gate| gate == Gate::Unknown) {
        // Whoever runs those apiservers shows nobody what they run; nothing depends on it where no
        // node could redirect. What can be seen has to be alike all the same.
        let hidden = |i: &Instance| {
            gate(cluster.track, i.minor, i.seen) == Gate::Unknown && i.seen != Seen::Managed
        };
        let minors: BTreeSet<Option<u16>> = cluster.instances.iter().map(|i| i.minor).collect();
        let one = minors.len() == 1 && (cluster.instances.len() == 1 || !minors.contains(&None));
        let (on, off) =
            (gates().any(|g| g == Gate::On), gates().any(|g| matches!(g, Gate::Off | Gate::Gone)));
        let alike = one && !(on && off);
        return match cluster.nodes.iter().all(safe)
            && alike
            && !cluster.instances.iter().any(hidden)
        {
            true => ("True", "GateDoesNotMatter"),
            false => ("False", "ApiserversUnknown"),
        };
    }
    if cluster.instances.iter().any(|i| i.minor != first.minor) || gates().min() != gates().max() {
        return ("False", "ApiserversMixed");
    }
    if cluster.nodes.iter().any(|n| redirects(n.kubelet, &n.claims) != Redirects::No) {
        return ("True", "OnlyOverriddenNodes");
    }
    ("True", "NoNodeRedirects")
}

/// What an upgrade of every apiserver to `minor` meets, by name.
pub fn upgrade(cluster: &Cluster, minor: u16) -> BTreeSet<&'static str> {
    let Cluster { track, instances, nodes, .. } = cluster;
    let mut found = BTreeSet::new();
    let default = default_gate(*track, minor);
    let gates = || instances.iter().map(|i| gate(*track, Some(minor), i.seen));
    let blocking = |wanted| {
        nodes.iter().any(|n| !cluster.excepted(n) && redirects(n.kubelet, &n.claims) == wanted)
    };
    let (yes, maybe) = (blocking(Redirects::Yes), blocking(Redirects::Maybe));
    if default.is_none() {
        if instances.iter().any(|i| matches!(i.seen, Seen::True | Seen::False)) {
            found.insert("ApiserverRefusesGate");
        }
        // One that runs a version without the gate has started without it.
        let past = |i: &Instance| i.minor.is_some_and(|m| default_gate(*track, m).is_none());
        let unseen =
            |i: &Instance| matches!(i.seen, Seen::Unreadable | Seen::Invisible | Seen::Managed);
        if instances.iter().any(|i| unseen(i) && !past(i)) {
            found.insert("ApiserverUnknown");
        }
    }
    match gates().max() {
        Some(Gate::Off | Gate::Gone) => {
            if yes {
                found.insert(match default {
                    None => "GateGone",
                    Some(false) => "GateOffByDefault",
                    Some(true) => "GateOff",
                });
            }
            if maybe {
                found.insert("NodesUnknown");
            }
        }
        Some(Gate::Unknown) if yes || maybe => {
            found.insert("GateUnknown");
        }
        _ => {}
    }
    if minor >= 22 {
        for node in nodes {
            let given = match node.kubelet {
                // No flag yet.
                Some(..=10) => Some(false),
                None | Some(11..=21) => flag_given(&node.claims),
                Some(22..) => flag_comes_back(&node.claims),
            };
            match given {
                Some(true) => found.insert("KubeletRefusesFlag"),
                Some(false) => false,
                None => found.insert("KubeletFlagUnknown"),
            };
        }
    }
    let redirecting = |n: &Node| redirects(n.kubelet, &n.claims) == Redirects::Yes;
    if minor >= 20 && nodes.iter().any(redirecting) {
        found.insert("DependsOnRedirects");
    }
    found
}
