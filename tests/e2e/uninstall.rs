//! What is left of Sluice on a cluster and its nodes after `sluice uninstall`: nothing.

use std::time::Duration;

use serde_json::Value;

use crate::{
    agent,
    bed::Bed,
    managed::{self, change, policy, runs_with_flag},
    operator::{COLLECTED, NAMESPACE, SECONDS},
    process::Output,
};

const NODES: [&str; 4] = ["cp1", "new1", "old1", "old2"];

/// All steps together; each has a deadline of its own.
const UNINSTALLED: Duration = Duration::from_secs(900);

#[track_caller]
fn uninstall(bed: &Bed, args: &[&str]) -> Output {
    let helm = bed.helm_program();
    let helm = format!("--helm={}", helm.display());
    let args = [&["uninstall", "--purge", &helm], args].concat();
    let output = bed.sluice_within(&args, UNINSTALLED);
    eprintln!("{output}");
    output
}

/// Ends the controller for good, without anything being told to go.
#[track_caller]
fn kill_for_good(bed: &Bed) {
    let name = "deployment/sluice-controller";
    bed.kubectl(&["scale", name, "-n", NAMESPACE, "--replicas=0"]).succeeded();
    bed.wait_for("the controller to be gone", SECONDS, || {
        let pods = "pods?labelSelector=app.kubernetes.io/component=controller";
        let pods = bed.get(&format!("/api/v1/namespaces/{NAMESPACE}/{pods}"))?;
        pods["items"].as_array()?.is_empty().then_some(())
    });
}

/// What of Sluice a node still has: tables of nftables, folders, processes.
#[track_caller]
fn left_on(bed: &Bed, node: &str) -> String {
    let look = "nft list tables | grep sluice || true; ls -d /run/sluice* /var/lib/sluice* \
                /etc/kubernetes/manifests/*sluice* /etc/kubernetes/manifests/.*sluice* 2>/dev/null || true; \
                pgrep -af '[s]luice (agent|remediator|canary|sweep)' || true";
    bed.host_exec(node, &["bash", "-c", look]).succeeded().text().to_owned()
}

/// Every object whose name or labels are Sluice's, of every kind.
#[track_caller]
fn left_in_the_api(bed: &Bed) -> Vec<String> {
    let kinds = bed.kubectl(&["api-resources", "--verbs=list", "-o", "name"]).succeeded();
    let kinds: Vec<&str> =
        kinds.text().lines().filter(|kind| !kind.starts_with("events")).collect();
    let all = bed.kubectl(&["get", &kinds.join(","), "-A", "-o", "json", "--ignore-not-found"]);
    let all: Value = serde_json::from_str(&all.succeeded().stdout).unwrap();
    let ours = |object: &&Value| object["metadata"].to_string().contains("sluice");
    let objects = all["items"].as_array().into_iter().flatten().filter(ours);
    let named = objects.map(|object| format!("{} {}", object["kind"], object["metadata"]["name"]));
    let mut named: Vec<String> = named.collect();
    // Helm made the namespace, and every namespace has these.
    let of_namespace = [
        "Namespace\" \"sluice-system",
        "ServiceAccount\" \"default",
        "kube-root-ca.crt",
        "default-token-",
        // The test cluster marks each start that it asks for.
        "Pod\" \"kube-apiserver-",
    ];
    named.retain(|object| !of_namespace.iter().any(|known| object.contains(known)));
    named
}

#[track_caller]
fn nothing_is_left(bed: &Bed) {
    let mut last = Vec::new();
    bed.wait_for("nothing to be left in the API", COLLECTED, || {
        let now = left_in_the_api(bed);
        if now != last {
            eprintln!("left in the API: {now:?}");
            last.clone_from(&now);
        }
        now.is_empty().then_some(())
    });
    for node in NODES {
        bed.wait_for(&format!("nothing to be left on {node}"), SECONDS, || {
            let left = left_on(bed, node);
            if !left.is_empty() {
                eprintln!("left on {node}: {left}");
            }
            left.is_empty().then_some(())
        });
    }
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn nothing_is_left_though_the_controller_is_dead() {
    let bed = Bed::shared();
    // Its rules outlive the agent, and refuse every stream.
    agent::fresh(&bed, "{failurePolicy: Closed}");
    for node in NODES {
        assert!(!left_on(&bed, node).is_empty(), "{node} has nothing to take away");
    }
    kill_for_good(&bed);
    let output = uninstall(&bed, &[]);
    assert_eq!(output.code(), Some(0), "{output}");
    nothing_is_left(&bed);
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn a_change_under_way_is_in_the_way_until_it_is_taken_back() {
    let bed = Bed::shared();
    managed::fresh_alone(&bed);
    policy(&bed, "streamingProxyRedirects: Enabled, nodes: {remediation: KubeletFlag}");
    bed.wait_for("a change of old1", 2 * SECONDS, || change(&bed, "old1").0);
    // Nobody confirms it now.
    kill_for_good(&bed);
    runs_with_flag(&bed, "old1", false);
    let output = uninstall(&bed, &[]);
    assert_eq!(output.code(), Some(2), "{output}");
    assert!(output.stdout.contains("old1") && output.stdout.contains("--take-back"), "{output}");
    let output = uninstall(&bed, &["--take-back"]);
    assert_eq!(output.code(), Some(0), "{output}");
    runs_with_flag(&bed, "old1", true);
    nothing_is_left(&bed);
}
