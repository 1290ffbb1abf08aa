//! What must come out, told independently of `sluice::decision::websockets`: from KEP-4006 and from what real binaries
//! said. Plain numbers, and no look at the code.

use super::cluster::{Cluster, Gates, Instance, Node, Url};

/// Does a component of this minor start with this gate set to this value? The names are short: T translates, P tunnels
/// port-forwards, A asks for create, E extends to the kubelet, D declares.
fn starts(minor: u16, gate: char, value: bool) -> bool {
    match (gate, minor) {
        ('T', ..=28) | ('P', ..=29) | ('A' | 'D', ..=34) | ('E', ..=35) => false,
        ('D', 36..) => value,
        (_, 38) => value,
        (_, 39..) => false,
        _ => true,
    }
}

/// Is the gate on? `None` where nobody sees it.
fn on(minor: u16, gate: char, gates: &Gates) -> Option<bool> {
    let default = match (gate, minor) {
        ('T', ..=28) | ('P', ..=29) | ('A' | 'D', ..=34) | ('E', ..=35) => return Some(false),
        (_, 38..) | ('D', 37..) => return Some(true),
        ('T', 29) | ('P', 30) | ('D', 35) => false,
        _ => true,
    };
    let set = gates.as_ref()?;
    Some(set.iter().find(|(name, _)| *name == gate).map_or(default, |(_, value)| *value))
}

/// What may become of an exec by WebSocket through one apiserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exec {
    Works,
    MayFail,
    Fails,
}

/// What a node promises: whether its kubelet takes WebSockets, and what the apiserver believes of that. `None` may be
/// either; but no kubelet is believed to take what it does not, unless its Node says so now.
struct Promise {
    takes: Option<bool>,
    believed: Option<bool>,
    says_so_now: bool,
}

fn ways(known: Option<bool>) -> Vec<bool> {
    known.map_or(vec![true, false], |known| vec![known])
}

fn through(apiserver: (u16, &Gates), promise: &Promise, url: Url) -> Exec {
    let mut all = Vec::new();
    for translates in ways(on(apiserver.0, 'T', apiserver.1)) {
        for extends in ways(on(apiserver.0, 'E', apiserver.1)) {
            for takes in ways(promise.takes) {
                for believed in ways(promise.believed) {
                    if believed && !takes && !promise.says_so_now {
                        continue;
                    }
                    let comes = !translates || extends && believed;
                    all.push(match (comes, takes, url) {
                        (false, _, _) | (true, true, Url::Absolute) => Exec::Works,
                        (true, true, Url::SchemeLess) => Exec::Fails,
                        (true, true, Url::Unknown) => Exec::MayFail,
                        // Handed on as it came, and nobody promised anything.
                        (true, false, _) if !translates => Exec::Works,
                        (true, false, _) => Exec::MayFail,
                    });
                }
            }
        }
    }
    let (best, worst) = (all.iter().min().unwrap(), all.iter().max().unwrap());
    if best == worst || *worst == Exec::Works { *worst } else { Exec::MayFail }
}

fn worst(cluster: &Cluster, exec: impl Fn(&Instance) -> Exec) -> Exec {
    cluster.instances.iter().map(exec).max().unwrap()
}

/// Is what kubelets declare kept by every apiserver? One that has the gate off drops it.
fn kept(cluster: &Cluster) -> bool {
    cluster.instances.iter().all(|i| on(i.minor, 'D', &i.gates) == Some(true))
}

/// What the Node tells. Silence tells something only where a word would have been kept, and would have been said.
fn declared(cluster: &Cluster, node: &Node) -> Option<bool> {
    let would = node.declared.is_some() || on(node.kubelet, 'D', &node.gates) == Some(true);
    if node.declares() {
        return Some(true);
    }
    (would && kept(cluster)).then_some(false)
}

/// Does the kubelet that runs now take WebSockets? Its gates say so, and so does what it declares; where the two do not
/// agree, one of them is old.
fn takes_now(cluster: &Cluster, node: &Node) -> Option<bool> {
    match (on(node.kubelet, 'E', &node.gates), declared(cluster, node)) {
        (Some(gates), Some(declared)) if gates != declared => None,
        (gates, declared) => gates.or(declared),
    }
}

/// The gates that are told of the kubelet, if its Node does not tell otherwise. A kubelet that cannot declare it at all
/// is not spoken of.
fn credible(cluster: &Cluster, node: &Node) -> Gates {
    let told = on(node.kubelet, 'E', &node.gates);
    let denied = told.is_some() && declared(cluster, node).is_some_and(|d| Some(d) != told);
    if denied && node.kubelet >= 36 { None } else { node.gates.clone() }
}

fn promise_now(cluster: &Cluster, node: &Node) -> Promise {
    Promise { takes: takes_now(cluster, node), believed: Some(node.declares()), says_so_now: true }
}

pub fn today(cluster: &Cluster, node: &Node) -> Exec {
    let promise = promise_now(cluster, node);
    worst(cluster, |i| through((i.minor, &i.gates), &promise, node.url()))
}

pub fn then(cluster: &Cluster, node: &Node, target: u16) -> Exec {
    // Its silence of today ends where an apiserver of today drops its words.
    let promise = if node.kubelet >= target && (node.declares() || kept(cluster)) {
        promise_now(cluster, node)
    } else {
        let (at, set) = (target.max(node.kubelet), credible(cluster, node));
        let gates = on(at, 'E', &set);
        // Nobody saw its gates, but what it does now it does until the gate is locked.
        let now = || if node.kubelet >= 36 { takes_now(cluster, node) } else { None };
        let takes = gates.or_else(now);
        let believed = match (takes, on(at, 'D', &set)) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        };
        Promise { takes, believed, says_so_now: false }
    };
    worst(cluster, |i| through((i.minor.max(target), &i.gates), &promise, node.url()))
}

/// May a component that runs `from` and of which nobody sees the gates have one that stops it up to `to`?
fn may_stop(from: u16, to: u16, but: &[(char, bool)]) -> bool {
    let gates =
        ['T', 'P', 'A', 'E', 'D'].into_iter().flat_map(|gate| [(gate, true), (gate, false)]);
    gates.filter(|gate| !but.contains(gate)).any(|(gate, value)| {
        // 1.36 takes D=false where nothing needs it.
        let runs = starts(from, gate, value) || (from, gate, value) == (36, 'D', false);
        runs && (from + 1..=to).any(|minor| !starts(minor, gate, value))
    })
}

fn stops(minor: u16, gates: &Gates, target: u16) -> bool {
    let set = gates.iter().flatten();
    let mut set = set.into_iter();
    set.any(|(gate, value)| {
        // One that runs 1.36 with D=false has nothing on that needs it.
        let runs = |at: u16| (at, *gate, *value) == (36, 'D', false) && at == minor;
        (minor..=target.max(minor)).any(|at| !starts(at, *gate, *value) && !runs(at))
    })
}

/// The status of `WebSocketsSafe`: `None` where the migration is far.
pub fn status(cluster: &Cluster) -> Option<&'static str> {
    let minors = || cluster.instances.iter().map(|i| i.minor);
    let (oldest, newest) = (minors().min().unwrap(), minors().max().unwrap());
    if newest < 34 && cluster.target.is_none_or(|target| target < 35) {
        return None;
    }
    let next = if newest >= 38 { newest } else { newest.max(oldest + 1) };
    let target = cluster.target.unwrap_or(next);
    if target < newest {
        return Some("False");
    }
    let stopped = cluster.instances.iter().any(|i| stops(i.minor, &i.gates, target))
        || cluster.nodes.iter().any(|n| stops(n.kubelet, &n.gates, target));
    let execs = |node: &Node| [today(cluster, node), then(cluster, node, target)];
    let unsafe_without_scheme = |node: &Node| {
        node.url() == Url::SchemeLess && execs(node).iter().any(|e| *e != Exec::Works)
    };
    if stopped || cluster.nodes.iter().any(unsafe_without_scheme) {
        return Some("False");
    }
    let hidden =
        cluster.instances.iter().any(|i| i.gates.is_none() && may_stop(i.minor, target, &[]));
    let unheard = cluster.nodes.iter().any(|node| {
        let but: &[(char, bool)] =
            if node.declares() && node.kubelet >= 36 { &[('E', false), ('D', false)] } else { &[] };
        credible(cluster, node).is_none() && may_stop(node.kubelet, target, but)
    });
    let may_fail = |node: &Node| execs(node).iter().any(|exec| *exec != Exec::Works);
    if hidden || unheard || cluster.nodes.iter().any(may_fail) {
        return Some("Unknown");
    }
    Some("True")
}
