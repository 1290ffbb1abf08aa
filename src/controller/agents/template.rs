//! The DaemonSet of the agents, as it ought to be.

use serde_json::{Map, Value, json};

use super::{AgentsSettings, SECCOMP_FIELD, SURGE, stored::SELECTORS};
use crate::{
    cluster::{AGENT_CONTAINER, Agents, Selector},
    kubernetes::version::Minor,
};

/// What an agent may take to end once its grace is over, in seconds.
const END: u32 = 10;

/// How long the token that names an agent's pod is good for, in seconds; the kubelet renews it.
const TOKEN_LIFE: u32 = 3_600;

/// The name of the token's file, and where its folder and the others are in the container.
const TOKEN: &str = "token";
const TOKEN_FOLDER: &str = "/var/run/sluice";
const STATE_FOLDER: &str = "/var/lib/sluice";
const RUN_FOLDER: &str = "/run/sluice";

/// What of the node an agent reads: the volume, the folder there, whether what is mounted there
/// later is seen, too. Everything is read-only, which does not keep from writing to a socket.
const HOST: [(&str, &str, bool); 4] = [
    // The sockets of the runtime and of the system bus. A restart replaces them, so their folders have
    // to be there.
    ("host-run", "/run", true),
    // The kubelet's command line, and that of the runtime.
    ("host-proc", "/proc", false),
    // What the kubelet's next start takes its arguments from.
    ("host-etc", "/etc", false),
    ("host-kubelet", "/var/lib/kubelet", true),
];

/// The DaemonSet that is wanted, for an apiserver of this minor. Only what matters is in it: the
/// rest is the apiserver's to fill in.
pub fn daemon_set(settings: &AgentsSettings, agents: &Agents, served: Option<Minor>) -> Value {
    let mut labels: Map<String, Value> = settings
        .selector()
        .into_iter()
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect();
    let selector = labels.clone();
    labels.insert("app.kubernetes.io/part-of".to_owned(), json!("sluice"));
    labels.insert("app.kubernetes.io/managed-by".to_owned(), json!("sluice-controller"));
    let owners = agents.owners.iter().map(|owner| {
        json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingPolicy",
            "name": owner.name, "uid": owner.uid,
        })
    });
    let selectors = json!(agents.selectors).to_string();
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": settings.name,
            "namespace": settings.namespace,
            "labels": labels,
            "annotations": {SELECTORS: selectors},
            "ownerReferences": owners.collect::<Vec<_>>(),
        },
        "spec": {
            "selector": {"matchLabels": selector},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": pace(served)},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations(served)},
                "spec": pod(settings, agents, served),
            },
        },
    })
}

/// A tenth of the agents at a time. Where the next agent may stand beside the one that it succeeds, it
/// does: that one may go on for long with the streams that it has.
fn pace(served: Option<Minor>) -> Value {
    const TENTH: &str = "10%";
    if served.is_some_and(|minor| minor >= SURGE) {
        json!({"maxSurge": TENTH, "maxUnavailable": 0})
    } else {
        json!({"maxUnavailable": TENTH})
    }
}

fn has_seccomp_field(served: Option<Minor>) -> bool {
    served.is_none_or(|minor| minor >= SECCOMP_FIELD)
}

fn annotations(served: Option<Minor>) -> Value {
    // Names the container for `kubectl logs` without -c.
    let mut annotations = json!({"kubectl.kubernetes.io/default-container": AGENT_CONTAINER});
    if !has_seccomp_field(served) {
        annotations["seccomp.security.alpha.kubernetes.io/pod"] = json!("runtime/default");
    }
    annotations
}

fn pod(settings: &AgentsSettings, agents: &Agents, served: Option<Minor>) -> Value {
    let mut security = json!({"runAsUser": 0, "runAsGroup": 0});
    // An apiserver that does not know the field refuses to apply it.
    if has_seccomp_field(served) {
        security["seccompProfile"] = json!({"type": "RuntimeDefault"});
    }
    let mut pod = json!({
        "serviceAccountName": settings.service_account,
        "automountServiceAccountToken": true,
        "enableServiceLinks": false,
        // The streams are the node's own, and so is the name under which the runtime listens.
        "hostNetwork": true,
        "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": settings.grace.saturating_add(END),
        // On every selected node, whatever it is tainted with.
        "tolerations": [{"operator": "Exists"}],
        "securityContext": security,
        "containers": [container(settings)],
        "volumes": volumes(),
    });
    if let Some(class) = &settings.priority_class {
        pod["priorityClassName"] = json!(class);
    }
    if !settings.pull_secrets.is_empty() {
        let secrets = settings.pull_secrets.iter().map(|name| json!({"name": name}));
        pod["imagePullSecrets"] = secrets.collect();
    }
    if let Some(affinity) = affinity(&agents.selectors) {
        pod["affinity"] = affinity;
    }
    pod
}

/// A node that any selector selects; `None` where one selects them all.
fn affinity(selectors: &[Selector]) -> Option<Value> {
    if selectors.iter().any(Selector::is_empty) {
        return None;
    }
    let terms = selectors.iter().map(|selector| {
        let expressions = selector
            .iter()
            .map(|(key, value)| json!({"key": key, "operator": "In", "values": [value]}));
        json!({"matchExpressions": expressions.collect::<Vec<_>>()})
    });
    let terms: Vec<Value> = terms.collect();
    Some(json!({"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
    }}))
}

fn container(settings: &AgentsSettings) -> Value {
    let mut args = vec![
        "agent".to_owned(),
        format!("--log={}", settings.log),
        format!("--log-format={}", settings.log_format),
        format!("--token={TOKEN_FOLDER}/{TOKEN}"),
        format!("--port={}", settings.port),
        format!("--grace={}", settings.grace),
    ];
    args.extend(settings.cri_socket.iter().map(|socket| format!("--cri-socket={socket}")));
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
    // No `ports`: on the host's network each would be one that the scheduler reserves.
    // Not over the network: at the port there may be another agent of the node, or anybody. A runtime
    // that is too busy to start a probe is no reason to end streams, so that takes minutes.
    let probe = |what: &str, period: u32| {
        json!({
            "exec": {"command": ["/sluice", "probe", what]},
            "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": 3,
        })
    };
    let mut mounts: Vec<Value> = HOST
        .iter()
        .map(|(name, path, follows)| {
            let mut mount =
                json!({"name": name, "mountPath": format!("/host{path}"), "readOnly": true});
            if *follows {
                mount["mountPropagation"] = json!("HostToContainer");
            }
            mount
        })
        .collect();
    mounts.extend([
        json!({"name": "state", "mountPath": STATE_FOLDER}),
        json!({"name": "run", "mountPath": RUN_FOLDER}),
        json!({"name": TOKEN, "mountPath": TOKEN_FOLDER, "readOnly": true}),
    ]);
    let mut container = json!({
        "name": AGENT_CONTAINER,
        "image": settings.image,
        "args": args,
        "env": [
            field("NODE_NAME", "spec.nodeName"),
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("POD_UID", "metadata.uid"),
        ],
        "livenessProbe": probe("alive", 60),
        "readinessProbe": probe("ready", 5),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            // Rules in nftables, and the mark by which its own connections skip them.
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
        },
        "volumeMounts": mounts,
    });
    if let Some(policy) = &settings.pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    let mut resources = json!({});
    for (kind, amounts) in [("requests", &settings.requests), ("limits", &settings.limits)] {
        if !amounts.is_empty() {
            resources[kind] = json!(amounts);
        }
    }
    if resources != json!({}) {
        container["resources"] = resources;
    }
    container
}

fn volumes() -> Value {
    let host = HOST
        .iter()
        .map(|(name, path, _)| json!({"name": name, "hostPath": {"path": path, "type": ""}}));
    host.chain([
        // The last wish, for a start while the apiserver is away.
        json!({"name": "state", "emptyDir": {}}),
        // What the agents of the node share.
        json!({"name": "run", "hostPath": {"path": RUN_FOLDER, "type": "DirectoryOrCreate"}}),
        // Beside the pod's usual token: before 1.21 only one of this kind names its pod.
        json!({"name": TOKEN, "projected": {"sources": [
            {"serviceAccountToken": {"path": TOKEN, "expirationSeconds": TOKEN_LIFE}},
        ]}}),
    ])
    .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{agents, settings};
    use super::*;

    #[test]
    fn the_whole_object() {
        let selectors = [("pool", "a"), ("pool", "b")];
        let wanted = daemon_set(&settings(), &agents(&selectors), Some(Minor(20)));
        insta::assert_snapshot!("daemon_set", serde_json::to_string_pretty(&wanted).unwrap());
    }

    #[test]
    fn what_may_be_left_out_is() {
        let settings = AgentsSettings {
            pull_policy: None,
            pull_secrets: Vec::new(),
            priority_class: None,
            cri_socket: None,
            requests: Default::default(),
            limits: Default::default(),
            ..settings()
        };
        let wanted = daemon_set(&settings, &agents(&[]), None);
        let pod = &wanted["spec"]["template"]["spec"];
        for field in ["priorityClassName", "imagePullSecrets", "affinity"] {
            assert_eq!(pod.get(field), None, "{field}");
        }
        let container = &pod["containers"][0];
        for field in ["imagePullPolicy", "resources", "ports"] {
            assert_eq!(container.get(field), None, "{field}");
        }
        assert_eq!(container["args"].as_array().map(Vec::len), Some(6));
    }

    #[test]
    fn the_next_agent_stands_beside_the_one_before_where_it_can() {
        for (minor, surge) in [(Some(21), false), (Some(22), true), (None, false)] {
            let wanted = daemon_set(&settings(), &agents(&[]), minor.map(Minor));
            let pace = &wanted["spec"]["updateStrategy"]["rollingUpdate"];
            assert_eq!(pace.get("maxSurge").is_some(), surge, "1.{minor:?}");
        }
    }

    #[test]
    fn seccomp_is_said_in_the_way_that_the_apiserver_understands() {
        for (minor, field) in [(Some(18), false), (Some(19), true), (Some(35), true), (None, true)]
        {
            let wanted = daemon_set(&settings(), &agents(&[]), minor.map(Minor));
            let template = &wanted["spec"]["template"];
            let has_field = template["spec"]["securityContext"].get("seccompProfile").is_some();
            let annotations = template["metadata"]["annotations"].as_object().unwrap();
            let annotation = annotations.contains_key("seccomp.security.alpha.kubernetes.io/pod");
            assert_eq!((has_field, annotation), (field, !field), "1.{minor:?}");
        }
    }
}
