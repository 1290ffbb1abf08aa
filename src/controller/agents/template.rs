//! The DaemonSet of the agents, as it ought to be.

use serde_json::{Map, Value, json};

use super::{AgentsSettings, SECCOMP_FIELD, SURGE, stored::SELECTORS};
use crate::{
    cluster::{AGENT_CONTAINER, Agents, NodeAccess, SYSTEM, Selector},
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

/// Has an agent leave the runtime and the kernel's rules alone.
pub(super) const EVIDENCE_ONLY: &str = "--evidence-only";

/// The folder in which the kubelet keeps its pods' volumes, and so the Secrets of all of them. Two files
/// beside it are read, and a file that is mounted by itself goes stale when another takes its place;
/// so the whole is mounted, and an empty folder over this one.
const PODS: (&str, &str) = ("no-pods", "/var/lib/kubelet/pods");

/// A folder of the node: the volume, the folder, whether what is mounted there later is seen, too.
type Folder = (&'static str, &'static str, bool);

/// What of the node an agent reads. Everything is read-only, which does not keep from writing to a
/// socket.
fn host(access: NodeAccess) -> Vec<Folder> {
    let run: &[Folder] = match access {
        // The sockets of the runtime and of the system bus. A restart replaces them, so their folders
        // have to be there.
        NodeAccess::Streams => &[("host-run", "/run", true)],
        NodeAccess::Evidence => {
            &[("host-bus", "/run/dbus", true), ("host-systemd", "/run/systemd", true)]
        }
    };
    let others: [Folder; 3] = [
        // The kubelet's command line, and that of the runtime.
        ("host-proc", "/proc", false),
        // What the kubelet's next start takes its arguments from.
        ("host-etc", "/etc", false),
        ("host-kubelet", "/var/lib/kubelet", true),
    ];
    run.iter().copied().chain(others).collect()
}

/// The DaemonSet that is wanted, for an apiserver of this minor. Only what matters is in it: the
/// rest is the apiserver's to fill in.
pub fn daemon_set(settings: &AgentsSettings, agents: &Agents, served: Option<Minor>) -> Value {
    let mut labels: Map<String, Value> = settings
        .selector()
        .into_iter()
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect();
    let selector = labels.clone();
    for (key, value) in &settings.pod.labels {
        labels.entry(key.clone()).or_insert_with(|| json!(value));
    }
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
                "metadata": {"labels": labels, "annotations": annotations(settings, served)},
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

fn annotations(settings: &AgentsSettings, served: Option<Minor>) -> Value {
    let mut annotations = json!(settings.pod.annotations);
    // Names the container for `kubectl logs` without -c.
    annotations["kubectl.kubernetes.io/default-container"] = json!(AGENT_CONTAINER);
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
        "nodeSelector": {(SYSTEM.0): SYSTEM.1},
        "tolerations": tolerations(settings),
        "securityContext": security,
        "containers": [container(settings, agents.access)],
        "volumes": volumes(agents.access),
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

/// On every selected node, whatever it is tainted with, unless somebody wants it otherwise.
fn tolerations(settings: &AgentsSettings) -> Value {
    let all = || json!([{"operator": "Exists"}]);
    settings.pod.tolerations.as_ref().map_or_else(all, |wanted| json!(wanted))
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

fn container(settings: &AgentsSettings, access: NodeAccess) -> Value {
    let mut args = vec![
        "agent".to_owned(),
        format!("--log={}", settings.log),
        format!("--log-format={}", settings.log_format),
        format!("--token={TOKEN_FOLDER}/{TOKEN}"),
        format!("--port={}", settings.port),
        format!("--grace={}", settings.grace),
    ];
    match access {
        NodeAccess::Evidence => args.push(EVIDENCE_ONLY.to_owned()),
        NodeAccess::Streams => {
            args.extend(settings.cri_socket.iter().map(|socket| format!("--cri-socket={socket}")));
        }
    }
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
    let mut env = vec![
        field("NODE_NAME", "spec.nodeName"),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_UID", "metadata.uid"),
    ];
    env.extend(settings.pod.env.iter().cloned());
    // No `ports`: on the host's network each would be one that the scheduler reserves.
    // Not over the network: at the port there may be another agent of the node, or anybody. A runtime
    // that is too busy to start a probe is no reason to end streams, so that takes minutes.
    let probe = |what: &str, period: u32| {
        json!({
            "exec": {"command": ["/sluice", "probe", what]},
            "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": 3,
        })
    };
    let mut mounts: Vec<Value> = host(access)
        .into_iter()
        .map(|(name, path, follows)| {
            let mut mount =
                json!({"name": name, "mountPath": format!("/host{path}"), "readOnly": true});
            if follows {
                mount["mountPropagation"] = json!("HostToContainer");
            }
            mount
        })
        .collect();
    let (no_pods, pods) = PODS;
    mounts.extend([
        json!({"name": no_pods, "mountPath": format!("/host{pods}"), "readOnly": true}),
        json!({"name": "state", "mountPath": STATE_FOLDER}),
        json!({"name": "run", "mountPath": RUN_FOLDER}),
        json!({"name": TOKEN, "mountPath": TOKEN_FOLDER, "readOnly": true}),
    ]);
    let mut container = json!({
        "name": AGENT_CONTAINER,
        "image": settings.image,
        "args": args,
        "env": env,
        "livenessProbe": probe("alive", 60),
        "readinessProbe": probe("ready", 5),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": capabilities(access),
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

fn capabilities(access: NodeAccess) -> Value {
    match access {
        NodeAccess::Evidence => json!({"drop": ["ALL"]}),
        // Rules in nftables, and the mark by which its own connections skip them.
        NodeAccess::Streams => json!({"drop": ["ALL"], "add": ["NET_ADMIN"]}),
    }
}

fn volumes(access: NodeAccess) -> Value {
    let host = host(access)
        .into_iter()
        .map(|(name, path, _)| json!({"name": name, "hostPath": {"path": path, "type": ""}}));
    host.chain([
        json!({"name": PODS.0, "emptyDir": {}}),
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
    use super::super::{
        PodExtras,
        tests::{agents, settings},
    };
    use super::*;

    #[test]
    fn the_whole_object() {
        let selectors = [("pool", "a"), ("pool", "b")];
        let wanted = daemon_set(&settings(), &agents(&selectors), Some(Minor(20)));
        insta::assert_snapshot!("daemon_set", serde_json::to_string_pretty(&wanted).unwrap());
    }

    #[test]
    fn nodes_of_another_system_get_none() {
        for labels in [&[][..], &[("pool", "a")]] {
            let wanted = daemon_set(&settings(), &agents(labels), None);
            let selector = &wanted["spec"]["template"]["spec"]["nodeSelector"];
            assert_eq!(*selector, json!({"kubernetes.io/os": "linux"}), "{labels:?}");
        }
    }

    #[test]
    fn an_agent_that_only_looks_has_neither_the_runtime_nor_the_kernels_rules() {
        let looking = Agents { access: NodeAccess::Evidence, ..agents(&[]) };
        let pod = &daemon_set(&settings(), &looking, None)["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        assert_eq!(container["securityContext"]["capabilities"], json!({"drop": ["ALL"]}));
        assert!(container["args"].as_array().unwrap().contains(&json!(EVIDENCE_ONLY)));
        let folders = pod["volumes"].as_array().unwrap().iter();
        let folders: Vec<&str> = folders.filter_map(|v| v["hostPath"]["path"].as_str()).collect();
        let expected =
            ["/run/dbus", "/run/systemd", "/proc", "/etc", "/var/lib/kubelet", "/run/sluice"];
        assert_eq!(folders, expected);
    }

    #[test]
    fn no_agent_sees_the_pods_volumes() {
        for access in [NodeAccess::Evidence, NodeAccess::Streams] {
            let wanted = daemon_set(&settings(), &Agents { access, ..agents(&[]) }, None);
            let pod = &wanted["spec"]["template"]["spec"];
            let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
            let over = mounts.iter().find(|m| m["mountPath"] == "/host/var/lib/kubelet/pods");
            let volumes = pod["volumes"].as_array().unwrap();
            let volume = volumes.iter().find(|volume| volume["name"] == over.unwrap()["name"]);
            assert_eq!(volume.unwrap()["emptyDir"], json!({}));
        }
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
    fn what_an_installation_adds_does_not_take_the_place_of_ours() {
        let pod = json!({
            "labels": {"team": "platform", "app.kubernetes.io/part-of": "another"},
            "annotations": {"a": "b"},
            "env": [{"name": "HTTPS_PROXY", "value": "x"}],
            "tolerations": [{"key": "a"}],
        });
        let settings = AgentsSettings { pod: serde_json::from_value(pod).unwrap(), ..settings() };
        let wanted = daemon_set(&settings, &agents(&[]), Some(Minor(18)));
        let template = &wanted["spec"]["template"];
        let labels = &template["metadata"]["labels"];
        assert_eq!(
            (&labels["team"], &labels["app.kubernetes.io/part-of"]),
            (&json!("platform"), &json!("sluice"))
        );
        assert_eq!(wanted["metadata"]["labels"], *labels);
        assert_eq!(wanted["spec"]["selector"]["matchLabels"].get("team"), None);
        assert_eq!(template["metadata"]["annotations"].as_object().map(Map::len), Some(3));
        let env = template["spec"]["containers"][0]["env"].as_array().unwrap();
        assert_eq!((env.len(), &env[4]["name"]), (5, &json!("HTTPS_PROXY")));
        assert_eq!(template["spec"]["tolerations"], json!([{"key": "a"}]));
        assert!(serde_json::from_value::<PodExtras>(json!({"hostPID": true})).is_err());
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
