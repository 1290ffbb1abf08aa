//! Agents are rolled out by an apiserver's rules: what is stored, what is put right, what is left
//! alone. No kubelet starts them here; their pods and reports are objects that a test creates.

use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use sluice::api::condition::PROXY_READY;

use crate::{
    apiserver::{Running, User, chart, eventually, signal},
    quiet::settled,
    replica::{LEASE, Replica},
    stage::{POLICY, Stage},
};

/// How a replica is told to roll out agents, as the chart does it.
pub const AGENTS: [&str; 9] = [
    "--namespace=sluice-system",
    "--agent-image=mirror.example/sluice:1",
    "--agent-pull-policy=IfNotPresent",
    "--agent-pull-secret=mirror",
    "--agent-service-account=sluice-agent",
    "--agent-priority-class=system-node-critical",
    "--agent-cpu-request=20m",
    "--agent-memory-request=32Mi",
    "--agent-memory-limit=256Mi",
];

const NAME: &str = "sluice-agent";

fn sets(stage: &Stage) -> Api<DaemonSet> {
    Api::namespaced(stage.client.clone(), chart::NAMESPACE)
}

/// Waits for a DaemonSet that is as `is` wants it.
pub async fn daemon_set(stage: &Stage, is: impl Fn(&DaemonSet) -> bool) -> DaemonSet {
    eventually("the agents' DaemonSet is as it ought to be", async || {
        sets(stage).get_opt(NAME).await.unwrap().filter(&is)
    })
    .await
}

/// Waits until there is no DaemonSet.
pub async fn no_daemon_set(stage: &Stage) {
    eventually("the agents' DaemonSet is gone", async || {
        sets(stage).get_opt(NAME).await.unwrap().is_none().then_some(())
    })
    .await;
}

async fn stage() -> Stage {
    let stage = Stage::set().await;
    let namespace = json!({"metadata": {"name": chart::NAMESPACE}});
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(stage.client.clone());
    let namespace = serde_json::from_value(namespace).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    stage
}

async fn replica(stage: &Stage, identity: &str) -> Replica {
    Replica::start_with(&stage.server, User::Admin, identity, LEASE, &AGENTS).await
}

fn pod(object: &DaemonSet) -> Value {
    json!(object.spec.as_ref().unwrap().template.spec)
}

fn terms(object: &DaemonSet) -> Value {
    let affinity = &pod(object)["affinity"]["nodeAffinity"];
    let terms = &affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    terms.as_array().into_iter().flatten().map(|term| term["matchExpressions"][0].clone()).collect()
}

fn term(pool: &str) -> Value {
    json!({"key": "pool", "operator": "In", "values": [pool]})
}

fn owners(object: &DaemonSet) -> Vec<&str> {
    let owners = object.metadata.owner_references.iter().flatten();
    owners.map(|owner| owner.name.as_str()).collect()
}

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn agents_follow_the_policies() {
    let stage = stage().await;
    let mut first = replica(&stage, "a").await;
    stage.judged(1).await;
    settled(&first).await;
    assert!(sets(&stage).get_opt(NAME).await.unwrap().is_none(), "nobody wants any");

    stage.edit_policy(POLICY, json!({"nodeSelector": {"pool": "a"}, "proxy": {}})).await;
    let made = daemon_set(&stage, |_| true).await;
    assert_eq!((terms(&made), owners(&made)), (json!([term("a")]), vec![POLICY]));
    assert_eq!(pod(&made)["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    eventually("its making is told", async || {
        stage.events("StreamingPolicy", POLICY).await.get("AgentsRolledOut").copied()
    })
    .await;
    stage.because(POLICY, PROXY_READY, "NoNodesSelected").await;

    stage.create_policy("more", json!({"nodeSelector": {"pool": "b"}, "proxy": {}})).await;
    let both = daemon_set(&stage, |object| owners(object).len() == 2).await;
    assert_eq!(terms(&both), json!([term("a"), term("b")]));
    stage.edit_policy("more", json!({"nodeSelector": null})).await;
    daemon_set(&stage, |object| terms(object) == json!([])).await;
    stage.edit_policy("more", json!({"nodeSelector": {"pool": "c"}})).await;
    daemon_set(&stage, |object| terms(object) == json!([term("a"), term("c")])).await;

    // A new leader finds it has to be.
    settled(&first).await;
    let before = sets(&stage).get(NAME).await.unwrap().metadata.resource_version;
    signal(&mut first, "TERM");
    eventually("the first ends", async || first.exited()).await;
    let second = replica(&stage, "b").await;
    eventually("the second judges", async || {
        (second.sum("sluice_decisions_total").await > 0.0).then_some(())
    })
    .await;
    assert_eq!(settled(&second).await.writes, 0.0);
    assert_eq!(sets(&stage).get(NAME).await.unwrap().metadata.resource_version, before);

    // A paused policy holds what there is; a deleted one does not.
    stage.edit_policy("more", json!({"paused": true})).await;
    stage.edit_policy(POLICY, json!({"proxy": null})).await;
    let held = daemon_set(&stage, |object| owners(object) == ["more"]).await;
    assert_eq!(terms(&held), json!([term("a"), term("c")]));
    stage.policies().delete("more", &DeleteParams::default()).await.unwrap();
    no_daemon_set(&stage).await;
}

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn what_agents_may_touch_grows_with_what_is_wanted_and_does_not_shrink() {
    let stage = stage().await;
    let replica = replica(&stage, "a").await;
    let added = |object: &DaemonSet| {
        pod(object)["containers"][0]["securityContext"]["capabilities"]["add"].clone()
    };
    stage.edit_policy(POLICY, json!({"proxy": {"mode": "Disabled"}})).await;
    let looking = daemon_set(&stage, |_| true).await;
    assert_eq!(added(&looking), Value::Null);
    assert_eq!(pod(&looking)["nodeSelector"], json!({"kubernetes.io/os": "linux"}));
    stage.edit_policy(POLICY, json!({"proxy": {"mode": "Streams"}})).await;
    let carrying = daemon_set(&stage, |object| added(object) == json!(["NET_ADMIN"])).await;
    // Rules of an agent that has died are taken away by one that may.
    stage.edit_policy(POLICY, json!({"proxy": {"mode": "Disabled"}})).await;
    settled(&replica).await;
    assert_eq!(daemon_set(&stage, |_| true).await.spec, carrying.spec);
    // It was changed, and not made anew.
    assert_eq!(carrying.metadata.uid, looking.metadata.uid);
}

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn drift_is_put_right_and_a_status_is_nothing() {
    let stage = stage().await;
    let replica = replica(&stage, "a").await;
    stage.edit_policy(POLICY, json!({"proxy": {}})).await;
    let made = daemon_set(&stage, |_| true).await;
    let before = settled(&replica).await;
    let api = sets(&stage);

    // As the DaemonSet's controller reports its pods.
    for ready in 1..=20 {
        let status = json!({"status": {
            "currentNumberScheduled": 20, "desiredNumberScheduled": 20, "numberMisscheduled": 0,
            "numberReady": ready, "observedGeneration": 1,
        }});
        api.patch_status(NAME, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }
    let unchanged = "sluice_watch_events_total{kind=\"DaemonSet\",effect=\"unchanged\"}";
    eventually("every report is seen", async || {
        (replica.metrics().await[unchanged] >= 20.0).then_some(())
    })
    .await;
    assert_eq!(settled(&replica).await, before);

    type Drift = fn(&mut Value);
    let drifts: [Drift; 5] = [
        |spec| spec["template"]["spec"]["containers"][0]["image"] = json!("other"),
        |spec| spec["template"]["spec"]["tolerations"] = Value::Null,
        |spec| spec["template"]["spec"]["nodeSelector"] = json!({"no": "where"}),
        |spec| {
            let more = json!({"name": "more", "image": "more"});
            spec["template"]["spec"]["containers"].as_array_mut().unwrap().push(more);
        },
        |spec| spec["updateStrategy"] = json!({"type": "OnDelete"}),
    ];
    for (index, drift) in drifts.into_iter().enumerate() {
        let mut object = api.get(NAME).await.unwrap();
        let mut spec = json!(object.spec);
        drift(&mut spec);
        object.spec = serde_json::from_value(spec).unwrap();
        let drifted = api.replace(NAME, &PostParams::default(), &object).await.unwrap();
        assert_ne!(drifted.spec, made.spec, "drift {index}");
        daemon_set(&stage, |object| object.spec == made.spec).await;
    }
    let metadata = json!({"metadata": {"ownerReferences": null}});
    api.patch(NAME, &PatchParams::default(), &Patch::Merge(metadata)).await.unwrap();
    daemon_set(&stage, |object| owners(object) == [POLICY]).await;
    settled(&replica).await;

    api.delete(NAME, &DeleteParams::background()).await.unwrap();
    daemon_set(&stage, |object| object.metadata.uid != made.metadata.uid).await;
    settled(&replica).await;
}

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn an_agent_is_believed_while_it_is_ready() {
    let stage = stage().await;
    let mut node = crate::apiserver::nodes::node("w1", "v1.19.16");
    node["metadata"]["labels"]["pool"] = json!("a");
    crate::apiserver::nodes::create(&stage.client, node).await;
    let replica = replica(&stage, "a").await;
    stage.edit_policy(POLICY, json!({"nodeSelector": {"pool": "a"}, "proxy": {}})).await;
    stage.because(POLICY, PROXY_READY, "AgentsNotReady").await;
    stage.judged(2).await;
    let set = daemon_set(&stage, |_| true).await;

    let report = |flag: &str, streams: &str| {
        json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingNode",
            "metadata": {"name": "w1"},
            "status": {"agent": {
                "flag": flag, "since": "2026-01-01T00:00:00Z", "streams": streams,
                "reason": "RuntimeAway", "message": "The runtime does not answer.",
                "bootID": "b", "machineID": "m",
            }},
        })
    };
    let tell = async |report: Value| {
        let params = PatchParams::apply("sluice-agent").force();
        stage.streaming_nodes().patch_status("w1", &params, &Patch::Apply(report)).await.unwrap();
    };
    tell(report("Absent", "Direct")).await;
    stage.safe_because(POLICY, "NodesUnknown").await;

    let pods: Api<Pod> = Api::namespaced(stage.client.clone(), chart::NAMESPACE);
    let labels = &set.spec.as_ref().unwrap().template.metadata.as_ref().unwrap().labels;
    let pod = json!({
        "metadata": {"name": "sluice-agent-x", "labels": labels, "ownerReferences": [{
            "apiVersion": "apps/v1", "kind": "DaemonSet", "name": NAME, "controller": true,
            "uid": set.metadata.uid,
        }]},
        "spec": {"nodeName": "w1", "containers": [{"name": "agent", "image": "image"}]},
    });
    let pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let ready = async |status: &str| {
        let patch = json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
        let params = PatchParams::default();
        pods.patch_status("sluice-agent-x", &params, &Patch::Merge(patch)).await.unwrap();
    };
    ready("True").await;
    let proxy = stage.because(POLICY, PROXY_READY, "NodesNotRelayed").await;
    assert!(proxy.message.contains("w1: The runtime does not answer."), "{}", proxy.message);
    stage.safe_because(POLICY, "NoNodeRedirects").await;
    tell(report("Absent", "Relayed")).await;
    assert_eq!(stage.because(POLICY, PROXY_READY, "Relaying").await.status, "True");
    eventually("that is told", async || {
        stage.events("StreamingPolicy", POLICY).await.get("Relaying").copied()
    })
    .await;
    let decided = async || {
        let status = stage.streaming_nodes().get("w1").await.unwrap().status.unwrap();
        status.decided_by
    };
    eventually("the node's evidence is the agent's", async || {
        (decided().await == "Agent").then_some(())
    })
    .await;

    // A younger policy says whom its nodes follow.
    stage.create_policy("younger", json!({"proxy": {"mode": "Disabled"}})).await;
    let younger = stage.because("younger", PROXY_READY, "AgentsNotReady").await;
    let follows = format!("w1 follows StreamingPolicy {POLICY}");
    assert!(younger.message.contains(&follows), "{}", younger.message);
    stage.edit_policy("younger", json!({"nodeSelector": {"pool": "a"}})).await;
    stage.because("younger", PROXY_READY, "OlderPolicyFollowed").await;

    // A pod that is well and says so again is nothing.
    let before = settled(&replica).await;
    for second in 0..20 {
        let probed = format!("2026-01-01T00:00:{second:02}Z");
        let patch = json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastProbeTime": probed},
        ]}});
        let params = PatchParams::default();
        pods.patch_status("sluice-agent-x", &params, &Patch::Merge(patch)).await.unwrap();
    }
    let unchanged = "sluice_watch_events_total{kind=\"AgentPod\",effect=\"unchanged\"}";
    eventually("every heartbeat is seen", async || {
        (replica.metrics().await[unchanged] >= 20.0).then_some(())
    })
    .await;
    assert_eq!(settled(&replica).await, before);

    ready("False").await;
    stage.safe_because(POLICY, "NodesUnknown").await;
    stage.because(POLICY, PROXY_READY, "AgentsNotReady").await;
    ready("True").await;
    stage.safe_because(POLICY, "NoNodeRedirects").await;
    let params = DeleteParams::default().grace_period(0);
    pods.delete("sluice-agent-x", &params).await.unwrap();
    stage.safe_because(POLICY, "NodesUnknown").await;
    assert_eq!(pods.list(&ListParams::default()).await.unwrap().items.len(), 0);
}
