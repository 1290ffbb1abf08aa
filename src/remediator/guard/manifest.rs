//! The guard's own manifest. Pure.

use serde_json::json;

/// The manifest's file name.
pub const MANIFEST: &str = "sluice-guard.yaml";

/// What of a guard differs between clusters. Paths are the node's, and the same in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The image, which the node has: the remediator runs from it.
    pub image: String,
    /// When the image is pulled.
    pub pull_policy: PullPolicy,
    /// The remediators' state folder.
    pub state: String,
    /// The folder of the apiserver's manifest.
    pub manifests: String,
    /// What is logged.
    pub log: String,
    /// The form of the log.
    pub log_format: String,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum PullPolicy {
    /// Before each start.
    Always,
    /// Where it is not there.
    #[default]
    IfNotPresent,
    /// Never.
    Never,
}

impl PullPolicy {
    /// Its name in a pod. A guard that has to start while the registry cannot be reached does not
    /// ask it about an image that is there.
    fn of_guard(self) -> &'static str {
        match self {
            Self::Always | Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

impl Template {
    /// The manifest for the attempt of this id. It is JSON, which is YAML, too.
    pub fn render(&self, id: &str) -> Vec<u8> {
        let Self { image, pull_policy, state, manifests, log, log_format } = self;
        let folder = |name: &str, path: &str, kind: &str| json!({"name": name, "hostPath": {"path": path, "type": kind}});
        let logs = crate::remediator::gate::LOGS;
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "sluice-guard",
                "namespace": "kube-system",
                "labels": {
                    "app.kubernetes.io/name": "sluice",
                    "app.kubernetes.io/component": "guard",
                    "app.kubernetes.io/part-of": "sluice",
                },
                "annotations": {"sluice.dev/change": id},
            },
            "spec": {
                // A network plugin may need the apiserver that does not start.
                "hostNetwork": true,
                "priorityClassName": "system-node-critical",
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "terminationGracePeriodSeconds": 5,
                "securityContext": {
                    "runAsUser": 0, "runAsGroup": 0,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [{
                    "name": "guard",
                    "image": image,
                    "imagePullPolicy": pull_policy.of_guard(),
                    "args": [
                        "remediator", "guard",
                        format!("--change={id}"),
                        format!("--state={state}"),
                        format!("--manifests={manifests}"),
                        format!("--log={log}"),
                        format!("--log-format={log_format}"),
                    ],
                    "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "readOnlyRootFilesystem": true,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [
                        {"name": "state", "mountPath": state},
                        {"name": "manifests", "mountPath": manifests},
                        {"name": "logs", "mountPath": logs, "readOnly": true},
                    ],
                }],
                "volumes": [
                    folder("state", state, "DirectoryOrCreate"),
                    folder("manifests", manifests, "Directory"),
                    folder("logs", logs, "DirectoryOrCreate"),
                ],
            },
        });
        format!("{pod:#}\n").into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_manifest() {
        let template = Template {
            image: "mirror.example/sluice:1".to_owned(),
            pull_policy: PullPolicy::Always,
            state: "/var/lib/sluice/remediator".to_owned(),
            manifests: "/etc/kubernetes/manifests".to_owned(),
            log: "info".to_owned(),
            log_format: "json".to_owned(),
        };
        let text = String::from_utf8(template.render("an \"id\"")).unwrap();
        // As the kubelet reads it.
        let read: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read["metadata"]["annotations"]["sluice.dev/change"], "an \"id\"");
        insta::assert_snapshot!(text);
    }
}
