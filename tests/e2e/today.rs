//! A cluster of today: real 1.37 and kubelets of 1.36. `make e2e-today` runs these tests on it, and those of the streams and
//! of what happens to agents, which know nothing of versions.

mod websockets;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{
    agent::{self, NAMESPACE, START, pod, relayed, rolled_out},
    api::{POLICIES, STREAMING_NODES},
    bed::{Bed, Client},
    managed::{canary_of, checked},
    operations::chart_lives,
    operator::{self, COLLECTED, POLICY, SECONDS, becomes, install},
    servers::{LIMITED, NODE, canary_answers, found, judged, limited, relays},
};

const NODES: [&str; 4] = ["cp1", "new1", "old1", "old2"];
const TRUE: [(&str, &str); 5] = [
    ("SafeToDisable", "GateRemoved"),
    ("RedirectsDisabled", "GateRemoved"),
    ("UpgradeSafe", "NothingBreaks"),
    ("WebSocketsSafe", "NothingBreaks"),
    ("ProxyReady", "Relaying"),
];

/// Agents on every node, and all that a policy of today has to say is true.
#[track_caller]
fn all_true(bed: &Bed) {
    agent::fresh(bed, "{mode: Streams}");
    rolled_out(bed);
    for (kind, reason) in TRUE {
        becomes(bed, kind, "True", reason);
    }
}

/// The agents are rolled out one after the other, each with a grace for the streams that it carries.
const ROLLED_TWICE: Duration = Duration::from_secs(240);

/// The resource versions of all that Sluice writes here.
fn written(bed: &Bed) -> BTreeMap<String, String> {
    let version = |path: String| {
        let object = bed.get(&path).unwrap_or_else(|| panic!("{path}"));
        (path, object["metadata"]["resourceVersion"].to_string())
    };
    let nodes = NODES.map(|node| version(format!("{STREAMING_NODES}/{node}")));
    nodes.into_iter().chain([version(format!("{POLICIES}/{POLICY}"))]).collect()
}

#[test]
#[ignore = "needs today's test cluster: make e2e-today"]
fn a_policy_is_all_true_and_nothing_is_written_at_rest() {
    let bed = Bed::shared();
    all_true(&bed);
    becomes(&bed, "Degraded", "False", "AsExpected");
    // Each kubelet writes its Node once a minute, changed or not: by then everything has been looked at again.
    let heard = || {
        let nodes = bed.get("/api/v1/nodes").expect("nodes");
        let nodes = nodes["items"].as_array().expect("a list");
        let version = |node: &serde_json::Value| node["metadata"]["resourceVersion"].to_string();
        nodes.iter().map(version).collect::<Vec<_>>()
    };
    let (before, nodes) = (written(&bed), heard());
    bed.wait_for("every kubelet to write its Node", Duration::from_secs(150), || {
        heard().iter().zip(&nodes).all(|(now, then)| now != then).then_some(())
    });
    assert_eq!(written(&bed), before);
}

/// A stream is tried from outside, as a person tries it, and by the canaries.
#[test]
#[ignore = "needs today's test cluster: make e2e-today"]
fn checks_answer_and_a_plan_from_files_says_what_the_policy_says() {
    let bed = Bed::shared();
    all_true(&bed);
    checked(&bed, &[], 0, &NODES);
    let plan = crate::walk::foretold(&bed, "1.38.0");
    assert_eq!(plan, crate::walk::Foretold::nothing());

    // Who has opened a stream is told by what says something: the kubelet's HTTP client says nothing.
    for (node, client) in [("new1", Client::Current), ("old1", Client::Old)] {
        pod(&bed, node);
        let args = ["exec", "-n", NAMESPACE, node, "-i", "--", "cat"];
        let mut session = bed.kubectl_session(client, &args);
        session.say("held");
        session.line_with("held", SECONDS).expect("an answer");
        let streams = bed.wait_for(&format!("the stream on {node}"), SECONDS, || {
            let held = agent::streams(&bed, node);
            // `sluice streams` itself is executed over one.
            (held.len() > 1).then_some(held)
        });
        let streams = format!("{streams:?}");
        assert!(!streams.contains("Go-http-client"), "{streams}");
        eprintln!("{streams}");
    }
}

#[test]
#[ignore = "needs today's test cluster: make e2e-today"]
fn the_chart_lives_on_a_cluster_of_today() {
    let bed = Bed::shared();
    operator::fresh(&bed);
    chart_lives(&bed, "True", "GateRemoved");
}

/// cri-dockerd, played by a stand-in, names no scheme in its URLs. A kubelet of 1.36 takes that for TLS when it is asked by
/// WebSocket, which is what KEP-4006 breaks there: neither the relay nor the runtime is to blame, and SPDY still passes.
#[test]
#[ignore = "needs today's test cluster: make e2e-today"]
fn cri_dockerd_is_found_and_relayed_as_far_as_its_kubelet_goes() {
    const NO_TLS: &str = "server gave HTTP response to HTTPS client";
    let bed = Bed::shared();
    agent::fresh(&bed, LIMITED);
    let kubelets = bed.versions_of("kubelet");
    if let Some(before) = kubelets.iter().find(|version| version.starts_with("1.35.")) {
        bed.replace(NODE, &[&format!("kubelet={before}"), "runtime=cri-dockerd"]);
        pod(&bed, NODE);
        eprintln!("{}", relays(&bed, "docker"));
        judged(&bed, "Safe", "FlagRemoved", "KubeletVersion");
        limited(&bed, Client::Current);
        canary_answers(&bed);
    }
    bed.replace(NODE, &["kubelet=1.36.3", "runtime=cri-dockerd"]);
    pod(&bed, NODE);
    let told = found(&bed, "docker", "Relayed");
    assert_eq!(told["runtime"]["tls"], false, "{told}");
    assert_eq!(told["streamingUrl"], "SchemeLess", "{told}");
    // Nobody has touched the kubelet's files since it started.
    assert!(told["streamingGates"].is_object(), "{told}");
    let exec = |client| bed.kubectl_of(client, &["exec", "-n", NAMESPACE, NODE, "--", "true"]);
    let before = agent::carried(&bed, NODE, "exec");
    exec(Client::Old).succeeded();
    assert!(agent::carried(&bed, NODE, "exec") > before);
    limited(&bed, Client::Old);
    let refusal = exec(Client::Current).failed();
    assert!(refusal.contains(NO_TLS), "{refusal}");
    // What is tried from outside says so, too. Without a canary nothing would be tried.
    canary_of(&bed, NODE);
    let check = bed.sluice(&["check", "--node", NODE]);
    assert_eq!(check.code(), Some(2), "{check}");
    assert!(check.to_string().contains("UrlWithoutScheme"), "{check}");
}

/// What Pod Security admission keeps out is said where a person looks, and comes when it is let in.
#[test]
#[ignore = "needs today's test cluster: make e2e-today"]
fn pod_security_that_keeps_the_agents_out_is_told_of() {
    const LEVEL: &str = "pod-security.kubernetes.io/enforce";
    let bed = Bed::shared();
    operator::fresh(&bed);
    let enforce = |level: &str| {
        let label = format!("{LEVEL}{level}");
        bed.kubectl(&["label", "namespace", operator::NAMESPACE, "--overwrite", &label])
            .succeeded();
    };
    enforce("=restricted");
    // The controller itself keeps to the strictest profile.
    bed.kubectl(&["delete", "pods", "-n", operator::NAMESPACE, "--all", "--wait=false"])
        .succeeded();
    install(&bed, &[]);
    agent::policy(&bed, "{mode: Streams}");
    let message = operator::becomes_within(&bed, START, "ProxyReady", "False", "AgentsNotReady");
    assert!(message.contains("events of the agents' DaemonSet"), "{message}");
    bed.wait_for("such an event that says why", SECONDS, || {
        let of_agents = "fieldSelector=involvedObject.name=sluice-agent,reason=FailedCreate";
        let path = format!("/api/v1/namespaces/{}/events?{of_agents}", operator::NAMESPACE);
        bed.get(&path)?.to_string().contains("violates PodSecurity").then_some(())
    });
    enforce("=privileged");
    NODES.iter().for_each(|node| drop(relayed(&bed, node)));
    becomes(&bed, "ProxyReady", "True", "Relaying");
    enforce("-");
}

/// What somebody deletes comes back, and what is said of a node goes with it.
#[test]
#[ignore = "needs today's test cluster: make e2e-today"]
fn what_drifts_is_put_back_and_a_lost_node_is_forgotten() {
    let bed = Bed::shared();
    agent::fresh(&bed, "{mode: Streams}");
    becomes(&bed, "ProxyReady", "True", "Relaying");
    let agents =
        format!("/apis/apps/v1/namespaces/{}/daemonsets/sluice-agent", operator::NAMESPACE);
    let uid = || Some(bed.get(&agents)?["metadata"]["uid"].clone());
    let first = uid().expect("the agents' DaemonSet");
    bed.kubectl(&["delete", "daemonset", "sluice-agent", "-n", operator::NAMESPACE]).succeeded();
    bed.wait_for("another DaemonSet", SECONDS, || uid().filter(|now| *now != first));
    bed.kubectl(&["delete", "streamingnode", "old1"]).succeeded();
    let edit = r#"{"spec":{"template":{"spec":{"hostNetwork":false}}}}"#;
    bed.kubectl(&["patch", "daemonset", "sluice-agent", "-n", operator::NAMESPACE, "-p", edit])
        .succeeded();
    bed.wait_for("the edit to be undone", SECONDS, || {
        let spec = bed.get(&agents)?["spec"]["template"]["spec"].clone();
        (spec["hostNetwork"] == true).then_some(())
    });
    NODES.iter().for_each(|node| drop(relayed(&bed, node)));

    bed.remove("old2");
    bed.wait_for("the StreamingNode to go with its Node", COLLECTED, || {
        bed.get(&format!("{STREAMING_NODES}/old2")).is_none().then_some(())
    });
    // The edit has begun to roll pods out, and its undoing rolls them out again.
    operator::becomes_within(&bed, ROLLED_TWICE, "ProxyReady", "True", "Relaying");
    bed.wait_for("the policy to count three nodes", SECONDS, || {
        let policy = bed.get(&format!("{POLICIES}/{POLICY}"))?;
        (policy["status"]["nodes"]["total"] == 3).then_some(())
    });
}

/// An apiserver that checks fields itself, and kubectls of two ages before it.
#[test]
#[ignore = "needs today's test cluster: make e2e-today"]
fn bad_input_is_refused_and_a_policy_is_applied_on_the_server() {
    let bed = Bed::shared();
    operator::fresh(&bed);
    let policy = |spec: &str| {
        format!(
            "apiVersion: sluice.dev/v1alpha1\nkind: StreamingPolicy\nmetadata: {{name: {POLICY}}}\nspec: {spec}\n"
        )
    };
    for (spec, said) in [
        ("{streamingProxyRedirect: Disabled}", "unknown field"),
        ("{proxy: {maxConectionBytesPerSec: 1000}}", "unknown field"),
        ("{streamingProxyRedirects: Off}", "streamingProxyRedirects"),
        ("{targetVersion: soon}", "targetVersion"),
        // The webhook's.
        (
            "{streamingProxyRedirects: Disabled, apply: StaticPod, overrides: [{node: old1, reason: gone, \
             expires: \"2020-01-01T00:00:00Z\"}]}",
            "expired",
        ),
    ] {
        let refusal = bed.try_apply(&policy(spec)).failed();
        assert!(refusal.contains(said), "{spec}: {refusal}");
    }
    let wanted = policy("{streamingProxyRedirects: Disabled}");
    for client in [Client::Current, Client::Old] {
        let args = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        bed.kubectl_fed(client, &args, Some(&wanted)).succeeded();
        becomes(&bed, "RedirectsDisabled", "True", "GateRemoved");
    }
}
