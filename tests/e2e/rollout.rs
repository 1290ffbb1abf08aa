//! The gate turned off and on by Sluice, the flag taken off a kubelet, and what goes wrong on the way.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    agent::START,
    bed::Bed,
    managed::{
        BOTH, Client, OFF, ROLLOUT, apiserver_is_ready, canary_of, change, checked, ends,
        forget_returns, fresh, fresh_alone, kill_controller, kill_remediator, kubeadm_follows,
        kubeadm_gates, manifest, old_or_new, planned, policy, policy_within, runs_with_flag,
        runs_with_gates, turn_off_with_a_typo,
    },
    operator::{NAMESPACE, POLICY, SECONDS, becomes, becomes_within, condition, events, watched},
};

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn a_redirecting_cluster_is_carried_over_while_execs_go_on_and_back() {
    let bed = Bed::shared();
    fresh(&bed);
    let originals = BOTH.map(|node| manifest(&bed, node));
    policy(&bed, "streamingProxyRedirects: Disabled");
    let message = ends(&bed, "Progressing", "False", "Refused");
    assert!(message.contains("old1"), "{message}");
    assert_eq!(BOTH.map(|node| manifest(&bed, node)), originals, "nothing is touched");

    let client = Client::start(&bed);
    policy(&bed, "streamingProxyRedirects: Disabled, nodes: {remediation: KubeletFlag}");
    ends(&bed, "NodesRemediated", "True", "NoFlags");
    runs_with_flag(&bed, "old1", false);
    runs_with_flag(&bed, "new1", false);
    ends(&bed, "RedirectsDisabled", "True", "GateOff");
    ends(&bed, "Progressing", "False", "AsWanted");
    for (node, original) in BOTH.iter().zip(&originals) {
        assert!(old_or_new(&bed, node, original), "{node}");
    }
    kubeadm_follows(&bed, Some(OFF));
    // Where it stands when the last apiserver and all agents are seen again.
    ends(&bed, "Degraded", "False", "AsExpected");
    client.had_no_failure();
    bed.wait_for("the last step's event", SECONDS, || {
        events(&bed, "StreamingPolicy", "ChangeConfirmed").into_iter().find(|m| m.contains("cp2"))
    });
    // A kubelet's next start finds the flag nowhere.
    bed.host_exec("old1", &["systemctl", "restart", "kubelet"]).succeeded();
    runs_with_flag(&bed, "old1", false);

    let client = Client::start(&bed);
    policy(&bed, "streamingProxyRedirects: Enabled");
    ends(&bed, "RedirectsDisabled", "False", "GateOn");
    ends(&bed, "Progressing", "False", "AsWanted");
    assert_eq!(BOTH.map(|node| manifest(&bed, node)), originals, "byte for byte");
    kubeadm_follows(&bed, None);
    client.had_no_failure();
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn an_apiserver_that_does_not_start_goes_back_by_itself() {
    let bed = Bed::shared();
    fresh(&bed);
    bed.replace("old1", &["redirect=false"]);
    canary_of(&bed, "old1");
    let originals = BOTH.map(|node| manifest(&bed, node));
    turn_off_with_a_typo(&bed, "cp1");
    let message = ends(&bed, "Degraded", "True", "ChangeRolledBack");
    assert!(message.contains("cp1"), "{message}");
    assert!(message.contains("unrecognized feature gate: NoSuchGate"), "{message}");
    assert_eq!(BOTH.map(|node| manifest(&bed, node)), originals);
    assert_eq!(change(&bed, "cp2"), (None, None), "the second was never asked");
    apiserver_is_ready(&bed, "cp1", true);
    let stopped = condition(&bed, POLICY, "Progressing").unwrap();
    assert_eq!(stopped.brief(), ("False", "ChangeRolledBack"));
    assert_eq!(kubeadm_gates(&bed), None);
}

/// One control plane whose gate may be turned off; returns the manifest of its apiserver. Its kubelet looks at its pods as
/// seldom as kubelets do by default, and the bed's do six times as often: until then no mirror pod tells of a change.
#[track_caller]
fn alone(bed: &Bed) -> String {
    let looks = "s/^syncFrequency: .*/syncFrequency: 1m0s/";
    bed.host_exec("cp1", &["sed", "-i", looks, "/var/lib/kubelet/config.yaml"]).succeeded();
    fresh_alone(bed);
    bed.replace("old1", &["redirect=false"]);
    canary_of(bed, "old1");
    manifest(bed, "cp1")
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn the_only_apiserver_goes_back_by_itself_even_across_a_power_failure() {
    let bed = Bed::shared();
    let original = alone(&bed);
    for power_fails in [false, true] {
        turn_off_with_a_typo(&bed, "cp1");
        apiserver_is_ready(&bed, "cp1", false);
        let broken = Instant::now();
        if power_fails {
            // No apiserver tells the kubelet of any pod but those of its manifests.
            bed.reboot_alone("cp1");
            assert!(manifest(&bed, "cp1").contains("NoSuchGate"), "it has gone back before");
        }
        bed.wait_for("the original", ROLLOUT, || (manifest(&bed, "cp1") == original).then_some(()));
        let took = broken.elapsed().as_secs_f64();
        eprintln!("power failure {power_fails}: the original was back after {took:.0} s");
        apiserver_is_ready(&bed, "cp1", true);
        bed.wait_for("the load balancer to see it", ROLLOUT, || bed.ready().then_some(()));
        let message = ends(&bed, "Degraded", "True", "ChangeRolledBack");
        assert!(message.contains("unrecognized feature gate: NoSuchGate"), "{message}");
        assert_eq!(kubeadm_gates(&bed), None);
        // Another policy of this name starts again.
        bed.no_policy().succeeded();
        bed.wait_for("nothing to be wanted", SECONDS, || {
            (change(&bed, "cp1") == (None, None)).then_some(())
        });
    }
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn the_only_apiserver_is_turned_and_turned_back() {
    let bed = Bed::shared();
    let original = alone(&bed);
    policy_within(&bed, 240, "streamingProxyRedirects: Disabled");
    runs_with_gates(&bed, "cp1", Some(OFF));
    ends(&bed, "RedirectsDisabled", "True", "GateOff");
    ends(&bed, "Progressing", "False", "AsWanted");
    assert!(old_or_new(&bed, "cp1", &original));
    kubeadm_follows(&bed, Some(OFF));
    // Where it stands when the last apiserver and all agents are seen again.
    ends(&bed, "Degraded", "False", "AsExpected");

    policy_within(&bed, 240, "streamingProxyRedirects: Enabled");
    runs_with_gates(&bed, "cp1", None);
    ends(&bed, "RedirectsDisabled", "False", "GateOn");
    ends(&bed, "Progressing", "False", "AsWanted");
    assert_eq!(manifest(&bed, "cp1"), original, "byte for byte");
    kubeadm_follows(&bed, None);
}

/// Who is hit at every step.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Controller,
    Remediator,
    Node,
}

impl Victim {
    fn hit(self, bed: &Bed, node: &str) {
        match self {
            Self::Controller => kill_controller(bed),
            Self::Remediator => kill_remediator(bed, node),
            Self::Node => bed.reboot(node),
        }
    }
}

/// Waits until the node's change has come to this step, or past it; nothing where there is none any more.
fn reaches(bed: &Bed, node: &str, step: &str) {
    let order = ["Preparing", "Applied", "Confirmed"];
    let at = |phase: &str| order.iter().position(|known| *known == phase);
    watched(bed, &format!("{node} to be {step}"), ROLLOUT, "Progressing", |progress| {
        let (id, phase) = change(bed, node);
        let over = progress.is_some_and(|c| c.reason == "AsWanted");
        let asked = id.is_some() && step == "Asked";
        let there = phase.is_some_and(|phase| at(&phase) >= at(step));
        (asked || there || over).then_some(())
    });
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn whoever_dies_at_whatever_step_it_ends_in_the_old_or_the_new_state() {
    let bed = Bed::shared();
    fresh(&bed);
    bed.replace("old1", &["redirect=false"]);
    canary_of(&bed, "old1");
    let originals = BOTH.map(|node| manifest(&bed, node));
    for victim in [Victim::Controller, Victim::Remediator, Victim::Node] {
        let began = Instant::now();
        policy(&bed, "streamingProxyRedirects: Disabled");
        for (node, steps) in [("cp1", ["Asked", "Applied"]), ("cp2", ["Applied", "Confirmed"])] {
            for step in steps {
                reaches(&bed, node, step);
                eprintln!("{victim:?} is hit at {node} {step}");
                victim.hit(&bed, node);
            }
        }
        let end = bed.wait_for("an end", ROLLOUT, || {
            let ended = ["AsWanted", "ChangeRolledBack", "ChangeFailed"];
            condition(&bed, POLICY, "Progressing").filter(|c| ended.contains(&c.reason.as_str()))
        });
        let took = began.elapsed().as_secs_f64();
        eprintln!("{victim:?}: {} after {took:.0} s: {}", end.reason, end.message);
        let new = [0, 1].map(|i| old_or_new(&bed, BOTH[i], &originals[i]));
        assert!(end.reason != "AsWanted" || new == [true, true], "{victim:?}: {new:?}");
        for node in BOTH {
            apiserver_is_ready(&bed, node, true);
            // The guard goes with the change that it guards.
            bed.wait_for(
                &format!("{node} to be rid of the guard"),
                Duration::from_secs(90),
                || {
                    let there = ["test", "-e", "/etc/kubernetes/manifests/sluice-guard.yaml"];
                    (!bed.host_exec(node, &there).success()).then_some(())
                },
            );
        }
        policy(&bed, "streamingProxyRedirects: Enabled");
        ends(&bed, "RedirectsDisabled", "False", "GateOn");
        ends(&bed, "Progressing", "False", "AsWanted");
        assert_eq!(BOTH.map(|node| manifest(&bed, node)), originals, "{victim:?}");
        BOTH.iter().for_each(|node| forget_returns(&bed, node));
    }
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn a_gate_turned_off_by_hand_is_noticed_and_the_failing_nodes_are_named() {
    let bed = Bed::shared();
    fresh(&bed);
    bed.apply(&format!(
        "apiVersion: sluice.dev/v1alpha1\nkind: StreamingPolicy\nmetadata: {{name: {POLICY}}}\n\
         spec: {{streamingProxyRedirects: Disabled, proxy: {{mode: Disabled}}}}\n"
    ));
    // The agents come first: nobody else says so.
    let message =
        becomes_within(&bed, START, "SafeToDisable", "False", "NodesRedirectWhileLagging");
    assert!(message.contains("old1"), "{message}");
    // What machines read says so, too, once it is written.
    bed.wait_for("the flags to say that it is not safe", SECONDS, || {
        let flags = bed.get(&format!("/api/v1/namespaces/{NAMESPACE}/configmaps/sluice-flags"))?;
        (flags["data"]["safe-to-disable"] == "false").then_some(())
    });

    bed.apiserver_on("cp1", "1.20.15", &["--feature-gates=StreamingProxyRedirects=false"]);
    let mirror = || {
        let pod = bed.get("/api/v1/namespaces/kube-system/pods/kube-apiserver-cp1")?;
        pod.to_string().contains(OFF).then_some(())
    };
    bed.wait_for("the mirror pod to show the gate", SECONDS, mirror);
    let shown = Instant::now();
    let message = becomes(&bed, "Degraded", "True", "StreamsFail");
    let took = shown.elapsed();
    eprintln!("noticed {:.1} s after the mirror pod showed it", took.as_secs_f64());
    assert!(took <= Duration::from_secs(5), "{took:?}");
    assert!(message.contains("old1 fail through cp1"), "{message}");
    bed.wait_for("the event", SECONDS, || {
        events(&bed, "StreamingPolicy", "StreamsFail").into_iter().find(|m| m.contains("old1"))
    });
    // Ground truth says the same, and what to do.
    checked(&bed, &["old1", "old2"], 2, &["RedirectRefused"]);
    // And what has to go before an upgrade, in order.
    let flag = "--redirect-container-streaming";
    let expected = json!([
        // Its agent has said which file it is.
        ["RemoveKubeletFlag", ["old1"], "/etc/default/kubelet", flag],
        [
            "RemoveGate",
            ["cp1"],
            "/etc/kubernetes/manifests/kube-apiserver.yaml",
            format!("--feature-gates={OFF}")
        ],
        ["RemoveKubeletFlag", ["new1"], "/etc/default/kubelet", flag],
        ["Upgrade", ["cp1", "cp2"], null, null],
    ]);
    planned(&bed, "1.24", |steps| {
        let steps = steps.iter().map(|step| {
            let last = step["files"].as_array().and_then(|files| files.last());
            json!([step["action"], step["nodes"], last, step["changes"][0]["argument"]])
        });
        steps.collect::<Value>() == expected
    });
    bed.default_apiserver();
    becomes(&bed, "Degraded", "False", "AsExpected");
    checked(&bed, &[], 0, &[]);
}
