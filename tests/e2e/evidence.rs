//! What the agents see of their kubelets, without anybody's word, and how soon the verdict follows.

use std::time::{Duration, Instant};

use crate::{
    agent::{self, NAMESPACE, pod, report, rolled_out},
    api::STREAMING_NODES,
    bed::{Bed, Client},
    operator::{SECONDS, becomes, becomes_within, node_status},
};

const ON: &str = "--redirect-container-streaming=true";
const OFF: &str = "--redirect-container-streaming=false";
/// What is said of a flag that is gone.
const REFUSED: &str = "--redirect-container-streaming, which 1.22 and later refuse";
/// From the kubelet's restart to the status of its node.
const FOLLOWS: Duration = Duration::from_secs(5);

fn sees(bed: &Bed, node: &str) -> (String, String) {
    let field = |name| node_status(bed, node, name).unwrap_or_default();
    (field("redirects"), field("decidedBy"))
}

#[track_caller]
fn becomes_seen(bed: &Bed, node: &str, redirects: &str, source: &str) {
    let mut last = None;
    bed.wait_for(&format!("{node} to be {redirects} by {source}"), SECONDS, || {
        let now = sees(bed, node);
        if last.as_ref() != Some(&now) {
            eprintln!("{node}: {now:?}");
            last = Some(now.clone());
        }
        (now == (redirects.to_owned(), source.to_owned())).then_some(())
    });
}

/// Changes the flag where the kubelet's unit takes it from, and restarts it.
fn restart_kubelet(bed: &Bed, node: &str, from: &str, to: &str) {
    let edit = format!("s/{from}/{to}/");
    bed.host_exec(node, &["sed", "-i", &edit, "/etc/default/kubelet"]).succeeded();
    bed.host_exec(node, &["systemctl", "restart", "kubelet"]).succeeded();
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn agents_tell_what_no_annotation_says_and_the_verdict_follows() {
    let bed = Bed::shared();
    agent::fresh(&bed, "{mode: Streams}");
    becomes_seen(&bed, "old1", "On", "Agent");
    becomes_seen(&bed, "old2", "Off", "Agent");
    becomes_seen(&bed, "new1", "Ignored", "KubeletVersion");
    becomes(&bed, "SafeToDisable", "False", "NodesRedirectWhileLagging");
    // An agent that has just been started is believed once its first probe says that it is ready.
    rolled_out(&bed);

    restart_kubelet(&bed, "old1", ON, OFF);
    let restarted = Instant::now();
    becomes_seen(&bed, "old1", "Off", "Agent");
    let took = restarted.elapsed();
    eprintln!("the status followed {:.1} s after the restart", took.as_secs_f64());
    assert!(took <= FOLLOWS, "{took:?}");
    becomes(&bed, "SafeToDisable", "True", "NoNodeRedirects");

    restart_kubelet(&bed, "old1", OFF, ON);
    becomes_seen(&bed, "old1", "On", "Agent");
    becomes(&bed, "SafeToDisable", "False", "NodesRedirectWhileLagging");
}

/// new1's flag does nothing in its version, and is what keeps a kubelet of 1.22 from coming up.
#[test]
#[ignore = "needs the test cluster: make e2e"]
fn a_kubelet_that_does_not_come_up_is_told_of_and_blocks() {
    // A kubelet is started again after ten seconds, and believed to stay after twenty.
    const LOOPS: Duration = Duration::from_secs(120);
    let bed = Bed::shared();
    agent::fresh(&bed, "{mode: Streams}");
    rolled_out(&bed);
    restart_kubelet(&bed, "old1", ON, OFF);
    becomes(&bed, "SafeToDisable", "True", "NoNodeRedirects");

    bed.kubelet("new1", "1.22.17");
    let message = becomes_within(&bed, LOOPS, "SafeToDisable", "False", "KubeletCrashLoops");
    assert!(message.contains("new1") && message.contains(REFUSED), "{message}");
    // The node is written by itself, after the policy.
    bed.wait_for("the node to say the same", SECONDS, || {
        node_status(&bed, "new1", "reason").filter(|reason| reason == "KubeletCrashLoops")
    });
    let loops = || Some(report(&bed, "new1")?["kubeletCrashLoops"].clone());
    let told = loops().expect("a report");
    assert!(told["message"].as_str().unwrap().contains("exited last with status 1"), "{told}");

    // It is not told of again with every start.
    let version = || {
        let node = bed.get(&format!("{STREAMING_NODES}/new1")).expect("new1");
        node["metadata"]["resourceVersion"].clone()
    };
    let before = version();
    let restarts = || {
        let show = ["systemctl", "show", "--property=NRestarts", "--value", "kubelet"];
        bed.host_exec("new1", &show).text().parse::<u32>().unwrap()
    };
    let first = restarts();
    bed.wait_for("two more starts", LOOPS, || (restarts() >= first + 2).then_some(()));
    assert_eq!(version(), before);

    restart_kubelet(&bed, "new1", ON, "");
    becomes_within(&bed, LOOPS, "SafeToDisable", "True", "NoNodeRedirects");
    assert_eq!(loops(), Some(serde_json::Value::Null));
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn a_followed_redirect_is_proof() {
    let bed = Bed::shared();
    agent::fresh(&bed, "{mode: Streams}");
    pod(&bed, "old1");
    bed.kubectl_of(Client::Old, &["exec", "-n", NAMESPACE, "old1", "--", "true"]).succeeded();
    let peer = bed.wait_for("the followed redirect in the report", SECONDS, || {
        report(&bed, "old1")?["followedRedirect"]["peer"].as_str().map(str::to_owned)
    });
    let control_plane = bed.get("/api/v1/nodes/cp1").expect("cp1");
    assert_eq!(
        peer,
        control_plane["status"]["addresses"][0]["address"].as_str().expect("an address")
    );
    pod(&bed, "old2");
    bed.kubectl(&["exec", "-n", NAMESPACE, "old2", "--", "true"]).succeeded();
    assert!(report(&bed, "old2").expect("a report")["followedRedirect"].is_null());
}
