//! Streaming servers of runtimes that still listen for redirects that no kubelet answers with.

use std::net::SocketAddr;

use crate::decision::{
    condition::{ConditionOutcome, ConditionStatus},
    names::NameSummary,
};

/// What is to be changed, by the runtime's name.
const LINES: [(&str, &str); 2] = [
    (
        "containerd",
        "set stream_server_address = \"127.0.0.1\" under [plugins.\"io.containerd.grpc.v1.cri\"] in \
         /etc/containerd/config.toml and restart containerd",
    ),
    (
        "cri-o",
        "set stream_address = \"127.0.0.1\" under [crio.api] in /etc/crio/crio.conf and restart crio",
    ),
];

/// A runtime of a node whose kubelet does not redirect, and where else than on loopback it listens.
#[derive(Clone, Copy, Debug)]
pub struct Exposed<'a> {
    /// The node.
    pub node: &'a str,
    /// The runtime's name, as it gives it.
    pub runtime: &'a str,
    /// Where it listens.
    pub address: SocketAddr,
}

/// The warning about them, `RuntimeExposed`: a streaming server asks nobody for a password, and who
/// can reach it only needs to see the path of a stream.
pub fn runtime_exposed<'a>(exposed: impl IntoIterator<Item = Exposed<'a>>) -> ConditionOutcome {
    let exposed: Vec<Exposed<'_>> = exposed.into_iter().collect();
    let Some(first) = exposed.first() else {
        let message = "No runtime is known to listen on more than loopback without need.";
        return ConditionOutcome::new(ConditionStatus::False, "NoneExposed", message.to_owned());
    };
    let nodes: NameSummary<'_> = exposed.iter().map(|exposed| exposed.node).collect();
    let mut message = format!(
        "No kubelet redirects to the streaming server of the runtime on {nodes} any more, but it still \
         listens on the node's own address (such as {} on {}).",
        first.address, first.node
    );
    for (name, line) in LINES {
        if exposed.iter().any(|exposed| exposed.runtime == name) {
            message.push_str(&format!(" For {name}, {line}."));
        }
    }
    if exposed.iter().any(|exposed| LINES.iter().all(|(name, _)| exposed.runtime != *name)) {
        message.push_str(" For other runtimes, have it listen on 127.0.0.1 likewise.");
    }
    ConditionOutcome::new(ConditionStatus::True, "RuntimeExposed", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_to_change_is_named() {
        let exposed =
            |node, runtime| Exposed { node, runtime, address: "10.0.0.7:10010".parse().unwrap() };
        let none: [Exposed<'_>; 0] = [];
        assert_eq!(runtime_exposed(none).status, ConditionStatus::False);
        for (runtimes, expected, absent) in [
            (&["containerd"][..], "stream_server_address = \"127.0.0.1\"", "crio"),
            (&["cri-o"], "stream_address = \"127.0.0.1\"", "containerd"),
            (&["containerd", "cri-o"], "restart crio.", "other runtimes"),
            (&["gvisor"], "For other runtimes", "containerd"),
        ] {
            let all = runtimes.iter().map(|runtime| exposed("old1", runtime));
            let warning = runtime_exposed(all);
            assert_eq!((warning.status, warning.reason), (ConditionStatus::True, "RuntimeExposed"));
            let message = warning.message;
            assert!(message.contains(expected) && message.contains("10.0.0.7:10010 on old1"));
            assert!(!message.contains(absent), "{message}");
        }
    }
}
