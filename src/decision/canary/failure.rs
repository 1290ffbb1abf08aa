//! Failed probes in a few sentences.

use std::collections::{BTreeMap, BTreeSet};

use super::{Answer, Probe};
use crate::decision::{
    migration::{FlagBehaviour, STREAMING_REDIRECTS},
    names::NameSummary,
};

/// All probes that failed for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason.
    pub answer: Answer,
    /// The nodes, of many only the first by name and how many more.
    pub nodes: String,
    /// The apiservers, likewise.
    pub instances: String,
    /// What was said for the first of the nodes, word for word; empty where nothing was.
    pub said: String,
    /// What to do.
    pub advice: String,
}

/// The distinct reasons for which probes failed, in the order of [`Answer`].
pub fn failures(probes: &[Probe]) -> Vec<Failure> {
    let mut by_answer: BTreeMap<Answer, Vec<&Probe>> = BTreeMap::new();
    for probe in probes {
        let answers: BTreeSet<Answer> = probe.answers().into();
        for answer in answers.into_iter().filter(|answer| *answer != Answer::Answered) {
            by_answer.entry(answer).or_default().push(probe);
        }
    }
    by_answer.into_iter().map(|(answer, probes)| failure(answer, probes)).collect()
}

fn failure(answer: Answer, mut probes: Vec<&Probe>) -> Failure {
    probes.sort_by_key(|probe| (&probe.node, &probe.instance));
    let named = |of: fn(&Probe) -> &str| {
        let mut names: Vec<&str> = probes.iter().map(|probe| of(probe)).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().collect::<NameSummary>().to_string()
    };
    let (nodes, instances) = (named(|probe| &probe.node), named(|probe| &probe.instance));
    let said = probes.iter().find(|probe| !probe.said.is_empty());
    let mut advice = advice(answer, &nodes, &instances);
    if let Some(more) = said.and_then(|probe| hint(answer, &probe.said)) {
        advice.push(' ');
        advice.push_str(more);
    }
    Failure {
        advice,
        said: said.map(|probe| probe.said.clone()).unwrap_or_default(),
        answer,
        nodes,
        instances,
    }
}

/// What else an answer's own words point to.
fn hint(answer: Answer, said: &str) -> Option<&'static str> {
    match answer {
        Answer::RuntimeUnreachable if said.contains("x509:") => Some(
            "The kubelet does not trust the certificate of the runtime's streaming server. One that \
             the runtime made itself (enable_tls_streaming of containerd) is of use only where \
             redirects are followed: turn that off.",
        ),
        Answer::KubeletUnreachable if said.contains("x509:") => Some(
            "Where the node redirects and the gate is on, the certificate may also be that of the \
             runtime's streaming server, to which the redirect led: then turn enable_tls_streaming \
             of containerd off.",
        ),
        Answer::NotUnderstood if said.contains("404 page not found") => Some(
            "What was reached is no streaming server, or not the one that gave the address out: look \
             at the runtime's stream_server_address, and at what else listens there.",
        ),
        _ => None,
    }
}

/// What to do about an answer, for these nodes and apiservers, in a sentence or two.
pub fn advice(answer: Answer, nodes: &str, instances: &str) -> String {
    let (flag, gate) = (STREAMING_REDIRECTS.flag, STREAMING_REDIRECTS.gate);
    let modern = STREAMING_REDIRECTS
        .kubelet_since(FlagBehaviour::Ignored)
        .map_or(String::new(), |minor| format!(" upgrade them to {minor} or later,"));
    match answer {
        Answer::Answered => {
            format!("Streams to {nodes} through {instances} work; there is nothing to do.")
        }
        Answer::RedirectRefused => format!(
            "The kubelet redirects streams on {nodes}, which is not followed by {instances}: every \
             exec there fails. Take --{flag} off these kubelets,{modern} or turn the gate {gate} on \
             again."
        ),
        Answer::HostnameMismatch => format!(
            "The kubelet redirects streams on {nodes} to another host than the node, which \
             is refused by {instances}. Have the runtime's streaming server listen at the node's own \
             address, or take --{flag} off these kubelets."
        ),
        Answer::UpgradeHeadersMissing => format!(
            "Something on the way through {instances} to {nodes} drops the headers Connection and \
             Upgrade, or adds a Connection of its own beside it. Look for a proxy or load balancer in \
             front of the apiserver, and between it and the kubelets, and have it pass them on as \
             they are."
        ),
        Answer::RuntimeUnreachable => format!(
            "The kubelet on {nodes} gets no stream into the canary from its container runtime. Look \
             at the canary's pod there, at the runtime, and at the address of its streaming server."
        ),
        Answer::UrlWithoutScheme => format!(
            "The runtime on {nodes} answers with a URL that names no scheme, which the kubelet takes \
             for TLS when it is asked by WebSocket, as it is by {instances}: kubectl's exec and attach \
             fail there. Upgrade cri-dockerd to a version after 0.4.3, or set the gate \
             ExtendWebSocketsToKubelet to false in the configuration of these kubelets."
        ),
        Answer::KubeletUnreachable => format!(
            "The kubelet on {nodes} is not reached by {instances}. Look at the kubelet and its serving \
             certificate, and at what lies between: firewalls to its port 10250, or a tunnel such \
             as Konnectivity."
        ),
        Answer::Forbidden => format!(
            "The stream to {nodes} is refused by {instances}. Whoever asks needs get and create on \
             pods/exec, pods/attach and pods/portforward in the canaries' namespace; where the kubelet refuses, \
             look at the apiserver's --kubelet-client-certificate and its rights."
        ),
        Answer::ApiserverUnreachable => format!(
            "No answer comes here from {instances}, so nothing is known of the streams to {nodes} \
             through it. Look at that apiserver, at the way to it, and at whether its certificate \
             is for kubernetes.default.svc."
        ),
        Answer::NoAnswer => format!(
            "Nothing came back from {nodes} through {instances} in time. Look at whether the nodes \
             are up, and at the network between apiserver and kubelet."
        ),
        Answer::NotUnderstood => format!(
            "What came back from {nodes} through {instances} is no answer that is known. Look at \
             its words, and at the logs of the apiserver, of the kubelet and of the canary's pod."
        ),
    }
}
