//! What must not be lost or permitted when something breaks; and the chart's own life.

use std::time::Duration;

use crate::{
    api::POLICIES,
    bed::{Bed, Client},
    operator::{
        self, COLLECTED, NAMESPACE, POLICY, SECONDS, annotate, apply_example, becomes,
        becomes_saying, events, install, leader, node_status,
    },
};

/// A Lease is taken over after 15 s; then the new leader lists the cluster.
const TAKEOVER: Duration = Duration::from_secs(45);

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn a_killed_leader_and_a_restarted_apiserver_lose_nothing() {
    let bed = Bed::shared();
    operator::fresh(&bed);
    annotate(&bed, "old1", true);
    annotate(&bed, "old2", false);
    apply_example(&bed);
    becomes(&bed, "SafeToDisable", "False", "NodesRedirectWhileLagging");
    let version = || {
        let policy = bed.get(&format!("{POLICIES}/{POLICY}")).unwrap();
        policy["metadata"]["resourceVersion"].clone()
    };
    let before = version();

    let first = bed.wait_for("a leader", SECONDS, || leader(&bed));
    bed.kubectl(&["delete", "pod", &first, "-n", NAMESPACE, "--grace-period=0", "--force"])
        .succeeded();
    let second =
        bed.wait_for("another leader", TAKEOVER, || leader(&bed).filter(|now| *now != first));
    // It judges: a change is seen.
    annotate(&bed, "old1", false);
    becomes(&bed, "SafeToDisable", "True", "NoNodeRedirects");
    annotate(&bed, "old1", true);
    becomes(&bed, "SafeToDisable", "False", "NodesRedirectWhileLagging");
    assert_ne!(before, version(), "{second} wrote the change");

    // The apiserver goes and comes back; who leads may change, the verdict may not.
    let log = bed.host_exec("cp1", &["pkill", "-KILL", "-x", "kube-apiserver"]);
    log.succeeded();
    bed.wait_for("the apiserver to answer again", Duration::from_secs(90), || {
        bed.ready().then_some(())
    });
    annotate(&bed, "old2", true);
    bed.wait_for("old2 to redirect", TAKEOVER, || {
        node_status(&bed, "old2", "redirects").filter(|r| r == "On")
    });
    becomes_saying(&bed, "SafeToDisable", "False", "NodesRedirectWhileLagging", |message| {
        message.starts_with("old1 and old2 answer")
    });
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn a_policy_stored_before_the_schema_tightened_permits_nothing_and_stalls_nothing() {
    let bed = Bed::shared();
    operator::fresh(&bed);
    let crd = "streamingpolicies.sluice.dev";
    let track = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/rolloutTrack";
    let patch = |op: &str, value: &str| {
        let patch = format!(r#"[{{"op":"{op}","path":"{track}","value":{value}}}]"#);
        bed.kubectl(&["patch", "crd", crd, "--type=json", "-p", &patch]).succeeded();
    };
    let definition =
        bed.get(&format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd}")).unwrap();
    let tight = definition.pointer(track).unwrap().to_string();
    patch("replace", r#"{"type":"string"}"#);
    // Of two policies of one second the first by name is the older one.
    bed.wait_for("the looser schema to be served", SECONDS, || {
        let policy = "
apiVersion: sluice.dev/v1alpha1
kind: StreamingPolicy
metadata: {name: aged}
spec: {streamingProxyRedirects: Disabled, rolloutTrack: Reckless}
";
        bed.try_apply(policy).success().then_some(())
    });
    patch("replace", &tight);
    // Every node is safe; only the policy that nobody understands stands in the way.
    for node in ["old1", "old2"] {
        annotate(&bed, node, false);
    }
    apply_example(&bed);
    becomes(&bed, "Degraded", "True", "GateOwnerUnreadable");
    bed.wait_for("an event to the author", SECONDS, || {
        events(&bed, "StreamingPolicy", "PolicyUnreadable").into_iter().next()
    });
    let malformed = bed.get(&format!("{POLICIES}/aged")).unwrap();
    assert!(
        !malformed["status"]["conditions"].to_string().contains(r#""status":"True","type":"Safe"#),
        "{malformed}"
    );
    // The others are judged as ever.
    annotate(&bed, "old1", true);
    becomes(&bed, "SafeToDisable", "False", "NodesRedirectWhileLagging");
    bed.kubectl(&["delete", "streamingpolicy", "aged"]).succeeded();
    becomes(&bed, "Degraded", "False", "AsExpected");
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn bad_input_is_refused_or_said() {
    let bed = Bed::shared();
    operator::fresh(&bed);
    let policy = |name: &str, spec: &str| {
        format!(
            "apiVersion: sluice.dev/v1alpha1\nkind: StreamingPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        )
    };
    for (spec, said) in [
        ("{streamingProxyRedirect: Disabled}", "unknown field"),
        ("{streamingProxyRedirects: Off}", "streamingProxyRedirects"),
        ("{proxy: {maxConnectionBytesPerSec: -1}}", "maxConnectionBytesPerSec"),
        ("{proxy: {maxConnectionBytesPerSec: fast}}", "maxConnectionBytesPerSec"),
        ("{targetVersion: soon}", "targetVersion"),
        ("{overrides: [{node: old1, expires: \"2030-01-01T00:00:00Z\"}]}", "reason"),
    ] {
        let refusal = bed.try_apply(&policy("bad", spec)).failed();
        assert!(refusal.contains(said), "{spec}: {refusal}");
    }
    // What the schema cannot know is said in the status, and the rest of the policy counts.
    annotate(&bed, "old1", true);
    bed.apply(&policy(
        POLICY,
        "{streamingProxyRedirects: Disabled, proxy: {maxConnectionBytesPerSec: 5}, overrides: \
         [{node: old1, reason: gone, expires: \"2020-01-01T00:00:00Z\"}]}",
    ));
    let message = becomes(&bed, "Degraded", "True", "SpecInvalid");
    assert!(message.contains("out of range") && message.contains("old1 has expired"), "{message}");
    becomes(&bed, "SafeToDisable", "False", "NodesRedirectWhileLagging");
    // A second policy that wants the gate.
    bed.apply(&policy("younger", "{streamingProxyRedirects: Enabled}"));
    bed.wait_for("the younger policy to say who owns the gate", SECONDS, || {
        operator::condition(&bed, "younger", "Degraded").filter(|c| c.reason == "GateOwnedByOther")
    });
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn the_chart_upgrades_is_tested_and_goes_cleanly() {
    let bed = Bed::shared();
    operator::fresh(&bed);
    chart_lives(&bed, "False", "NodesUnknown");
}

/// The life of the chart on a cluster of which this is to be said.
#[track_caller]
pub fn chart_lives(bed: &Bed, safe: &str, reason: &str) {
    apply_example(bed);
    becomes(bed, "SafeToDisable", safe, reason);
    install(bed, &["--set", "controller.log.level=debug"]);
    let log = bed.helm(&["test", "sluice", "-n", NAMESPACE, "--timeout", "100s"]).succeeded();
    assert!(log.stdout.contains("Succeeded"), "{log}");
    let verdict = bed.kubectl(&["logs", "sluice-test", "-n", NAMESPACE]).succeeded();
    assert!(verdict.stdout.contains(reason), "{verdict}");

    bed.helm(&["uninstall", "sluice", "-n", NAMESPACE, "--wait"]).succeeded();
    let kept = bed.get(&format!("{POLICIES}/{POLICY}")).unwrap();
    assert_eq!(kept["spec"]["streamingProxyRedirects"], "Disabled", "policies outlive the chart");
    for kind in ["clusterrole", "clusterrolebinding"] {
        let left = bed.kubectl(&["get", kind, "-l", "app.kubernetes.io/name=sluice", "-o", "name"]);
        assert_eq!(left.succeeded().text(), "", "{kind}");
    }
    let delete = ["delete", "namespace", NAMESPACE, "--wait=true"];
    bed.kubectl_within(Client::Current, &delete, COLLECTED).succeeded();
    // What was said of the policy stands. Of what it says from now on nobody has said anything.
    let edit = r#"{"spec":{"stepDeadlineSeconds":240}}"#;
    bed.kubectl(&["patch", "streamingpolicy", POLICY, "--type=merge", "-p", edit]).succeeded();
    install(bed, &[]);
    becomes(bed, "SafeToDisable", safe, reason);
}
