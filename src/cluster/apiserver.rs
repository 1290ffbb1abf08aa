//! The apiservers of a cluster, from their mirror pods and from who answers for the `kubernetes`
//! Service.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Endpoints, Pod};

use crate::{
    decision::{
        apiserver::{Apiserver, Unseen},
        migration::STREAMING_REDIRECTS,
        websockets::gates,
    },
    kubernetes::{
        arguments::{apiserver, go_bool},
        feature_gates::{EMULATION, FeatureGates},
        version::Minor,
    },
};

/// Marks the apiserver's view of a static pod (`pkg/kubelet/types/pod_update.go`).
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// Selects the pods that an apiserver may be among, by fields: mirror pods have no ServiceAccount,
/// while admission gives one to every other pod. Their labels are whatever the manifest's author
/// wrote: kubeadm, Cluster API and RKE2 write `component`, kops `k8s-app`, others nothing.
pub const POD_FIELDS: &str = "spec.serviceAccountName=";

/// An apiserver's mirror pod: what it runs, and the addresses that it may answer at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiserverPod {
    addresses: BTreeSet<String>,
    instance: Apiserver,
    ready: bool,
    mentions: BTreeSet<(&'static str, Option<bool>)>,
    emulates: bool,
}

impl ApiserverPod {
    /// Reads a pod; `None` if it is no mirror pod of an apiserver.
    ///
    /// Only a mirror pod that its Node owns shows what a kubelet really runs: any other pod is
    /// somebody's claim. And an apiserver is what runs one, whatever its labels are.
    pub fn read(pod: &Pod) -> Option<Self> {
        let annotations = pod.metadata.annotations.as_ref()?;
        let spec = pod.spec.as_ref()?;
        let node = spec.node_name.as_ref()?;
        let owners = pod.metadata.owner_references.as_ref()?;
        let owned = owners.iter().any(|owner| owner.kind == "Node" && &owner.name == node);
        if !annotations.contains_key(MIRROR_ANNOTATION) || !owned {
            return None;
        }
        let named: Vec<(&str, apiserver::Words<'_>)> =
            spec.containers.iter().map(|c| (c.name.as_str(), words(c))).collect();
        // Where it is unclear which one it is, nothing of it is believed.
        let container = match apiserver::container(&named) {
            apiserver::Container::No => return None,
            apiserver::Container::At(at) => Some((&spec.containers[at], &*named[at].1)),
            apiserver::Container::Unclear => None,
        };
        let args = container.and_then(|(_, words)| words.get(apiserver::first_argument(words)?..));
        let mut addresses = BTreeSet::new();
        if let Some(status) = &pod.status {
            addresses.extend(status.host_ip.clone());
            addresses.extend(status.pod_ip.clone());
        }
        let advertised = args.and_then(|args| apiserver::text(args, "advertise-address"));
        addresses.extend(advertised.map(str::to_owned));
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ready = conditions.filter(|c| c.type_ == "Ready" && c.status == "True").count() > 0;
        let image = container.and_then(|(container, _)| container.image.as_deref());
        let instance = instance(node, image.unwrap_or_default(), args);
        let mentions = spec.containers.iter().flat_map(mentions).collect();
        let emulates = |text: &str| EMULATION.iter().any(|f| text.replace('_', "-").contains(f));
        let emulates = spec.containers.iter().flat_map(texts).any(emulates);
        Some(Self { addresses, instance, ready, mentions, emulates })
    }

    /// Whether it is ready.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The node it runs on.
    pub fn node(&self) -> &str {
        &self.instance.name
    }

    /// What it runs.
    pub fn apiserver(&self) -> &Apiserver {
        &self.instance
    }

    /// Whether it may be the one that answers at this address.
    pub fn answers_at(&self, address: &str) -> bool {
        self.addresses.contains(address)
    }

    /// Whether it shows a flag by which an apiserver behaves as one of another version, though its command
    /// line as a whole cannot be read.
    pub fn emulates(&self) -> bool {
        self.emulates
    }

    /// A gate of which the pod shows something else than this, though its command line as a whole
    /// cannot be read: in a script, or in a variable.
    pub fn contradicts(&self, gates: &FeatureGates) -> Option<&'static str> {
        let differs = |(gate, on): &&(&'static str, Option<bool>)| match (gates.get(gate), on) {
            (Some(said), Some(on)) => said != *on,
            (said, _) => said.is_none(),
        };
        self.mentions.iter().find(differs).map(|(gate, _)| *gate)
    }
}

/// Whether a container of this name, which is started by these words, makes its pod look like that
/// of an apiserver.
pub fn looks_like_apiserver(containers: &[(&str, apiserver::Words<'_>)]) -> bool {
    apiserver::container(containers) != apiserver::Container::No
}

/// Every name in `--feature-gates` by which something is judged.
pub fn judged_gates() -> impl Iterator<Item = &'static str> {
    STREAMING_REDIRECTS.gates().chain(gates::names())
}

fn instance(node: &str, image: &str, args: Option<&[&str]>) -> Apiserver {
    let minor = tag(image).and_then(|tag| Minor::running(tag).ok());
    // What a pre-release has of its minor, its number does not tell.
    let released = tag(image).and_then(|tag| tag.parse().ok());
    let gates = args.map(|args| {
        let gates = FeatureGates::from_args(args.iter().copied());
        gates.as_of_another_version(released != minor)
    });
    let unseen = match &gates {
        None => Some(Unseen::HiddenCommand),
        Some(gates) => match (gates.unreadable(), minor) {
            (Some(why), _) => Some(Unseen::Gates(why.to_owned())),
            (None, None) => Some(Unseen::Version(image.to_owned())),
            (None, Some(_)) => None,
        },
    };
    Apiserver { name: node.to_owned(), minor, gates, unseen }
}

/// The words in which a container starts its program.
fn words(container: &Container) -> apiserver::Words<'_> {
    container.command.iter().chain(&container.args).flatten().map(String::as_str).collect()
}

/// The words and variables of a container.
fn texts(container: &Container) -> impl Iterator<Item = &str> {
    let variables = container.env.iter().flatten().filter_map(|variable| variable.value.as_deref());
    words(container).into_iter().chain(variables)
}

/// The gates that a container names anywhere in its words and variables, and what they are set to.
fn mentions(container: &Container) -> Vec<(&'static str, Option<bool>)> {
    let texts: Vec<&str> = texts(container).collect();
    let in_text = |gate: &'static str, text: &&str| -> Vec<(&'static str, Option<bool>)> {
        let part_of_name = |c: char| c.is_ascii_alphanumeric();
        let each = text.match_indices(gate).filter_map(|(at, _)| {
            let behind = &text[at + gate.len()..];
            let longer = text[..at].ends_with(part_of_name) || behind.starts_with(part_of_name);
            let value = behind.trim_start().strip_prefix('=').map(str::trim_start);
            let value = value.and_then(|value| value.split(|c| !part_of_name(c)).next());
            (!longer).then_some((gate, value.and_then(go_bool)))
        });
        each.collect()
    };
    judged_gates().flat_map(|gate| texts.iter().flat_map(move |text| in_text(gate, text))).collect()
}

/// The tag of an image reference, without registry, port and digest.
fn tag(image: &str) -> Option<&str> {
    let name = image.rsplit('/').next()?;
    let name = name.split('@').next()?;
    name.split_once(':').map(|(_, tag)| tag)
}

/// The addresses that answer for the `kubernetes` Service, ready or not.
pub fn endpoint_addresses(endpoints: &Endpoints) -> BTreeSet<String> {
    let subsets = endpoints.subsets.iter().flatten();
    subsets
        .flat_map(|s| s.addresses.iter().chain(&s.not_ready_addresses).flatten())
        .map(|address| address.ip.clone())
        .collect()
}

/// Every apiserver: those with a mirror pod, and those that answer without one.
///
/// `endpoints` is `None` where nobody looked. `served` is the version that an apiserver reported
/// of itself; it stands for the others only where none of them can be seen.
pub fn instances<'a>(
    pods: impl IntoIterator<Item = &'a ApiserverPod>,
    endpoints: Option<&BTreeSet<String>>,
    served: Option<Minor>,
) -> Vec<Apiserver> {
    let pods: Vec<&ApiserverPod> = pods.into_iter().collect();
    let minor = served.filter(|_| pods.is_empty());
    let blind = |name: &str| Apiserver {
        name: name.to_owned(),
        minor,
        gates: None,
        unseen: Some(Unseen::NoMirrorPod),
    };
    let unmatched = endpoints
        .into_iter()
        .flatten()
        .filter(|address| !pods.iter().any(|pod| pod.answers_at(address)))
        .map(|address| blind(address));
    let mut all: Vec<Apiserver> =
        pods.iter().map(|pod| pod.instance.clone()).chain(unmatched).collect();
    if all.is_empty() && served.is_some() {
        all.push(blind("apiserver"));
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::decision::{gate::Gate, migration::STREAMING_REDIRECTS};

    fn pod(patch: impl FnOnce(&mut Value)) -> Pod {
        let mut pod = json!({
            "metadata": {
                "name": "kube-apiserver-cp1", "namespace": "kube-system",
                "annotations": {"kubernetes.io/config.mirror": "hash"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "cp1", "uid": "u"}],
            },
            "spec": {
                "nodeName": "cp1",
                "containers": [{
                    "name": "kube-apiserver", "image": "reg.example:5000/kube-apiserver:v1.20.2@sha256:00",
                    "command": ["kube-apiserver", "--advertise-address=10.0.0.1", "--v=2"],
                }],
            },
            "status": {"hostIP": "192.168.0.1"},
        });
        patch(&mut pod);
        serde_json::from_value(pod).unwrap()
    }

    fn gate(pod: &Pod) -> (Option<Minor>, Gate, Option<&'static str>) {
        let read = ApiserverPod::read(pod).unwrap().instance;
        let gate = read.gate(&STREAMING_REDIRECTS, Default::default());
        (read.minor, gate, read.unseen.as_ref().map(Unseen::reason))
    }

    #[test]
    fn reads_version_and_gate() {
        let off = "--feature-gates=StreamingProxyRedirects=false";
        for (command, expected) in [
            (json!(["kube-apiserver", "--v=2"]), (Gate::Enabled, None)),
            (json!(["kube-apiserver", off]), (Gate::Disabled, None)),
            (
                json!(["/go-runner", "--", "/usr/local/bin/kube-apiserver", off]),
                (Gate::Disabled, None),
            ),
            (
                json!(["/bin/sh", "-c", "exec kube-apiserver --v=2"]),
                (Gate::Unknown, Some("HiddenCommand")),
            ),
            (
                json!(["kube-apiserver", "--feature-gates=x"]),
                (Gate::Unknown, Some("FeatureGatesUnreadable")),
            ),
            (
                json!(["kube-apiserver", off, "--emulated-version=1.19"]),
                (Gate::Unknown, Some("FeatureGatesUnreadable")),
            ),
        ] {
            let pod = pod(|pod| pod["spec"]["containers"][0]["command"] = command.clone());
            assert_eq!(gate(&pod), (Some(Minor(20)), expected.0, expected.1), "{command}");
        }
    }

    /// Where the whole is hidden, each part that is seen must be what a user says.
    #[test]
    fn what_is_seen_contradicts_whoever_says_otherwise() {
        const E: &str = "ExtendWebSocketsToKubelet";
        for (script, said, contradicted, emulates) in [
            ("exec kube-apiserver", "", None, false),
            (
                "exec kube-apiserver --feature-gates=ExtendWebSocketsToKubelet=false",
                "",
                Some(E),
                false,
            ),
            (
                "exec kube-apiserver --feature-gates=ExtendWebSocketsToKubelet=false",
                "ExtendWebSocketsToKubelet=true",
                Some(E),
                false,
            ),
            (
                "exec kube-apiserver --feature-gates=ExtendWebSocketsToKubelet=false",
                "ExtendWebSocketsToKubelet=false",
                None,
                false,
            ),
            ("exec kube-apiserver --feature-gates=AllBeta=false", "", Some("AllBeta"), false),
            (
                "exec kube-apiserver --feature-gates=StreamingProxyRedirects=true",
                "",
                Some("StreamingProxyRedirects"),
                false,
            ),
            ("exec kube-apiserver --emulated_version=1.35", "", None, true),
        ] {
            let pod = pod(|pod| {
                pod["spec"]["containers"][0]["command"] = json!(["sh", "-c", script]);
            });
            let read = ApiserverPod::read(&pod).unwrap();
            let said = FeatureGates::from_args([format!("--feature-gates={said}").as_str()]);
            assert_eq!(read.contradicts(&said), contradicted, "{script}");
            assert_eq!(read.emulates(), emulates, "{script}");
        }
    }

    #[test]
    fn the_gates_of_a_pre_release_and_of_an_emulation_are_another_versions() {
        for (image, flag, expected) in [
            ("v1.36.0", "--v=2", false),
            ("v1.36.2-rc.1", "--v=2", false),
            ("v1.36.0-rc.1", "--v=2", true),
            ("v1.36.0", "--emulated-version=1.35", true),
            ("v1.36.0", "--emulation-forward-compatible", true),
        ] {
            let pod = pod(|pod| {
                let container = &mut pod["spec"]["containers"][0];
                container["image"] = json!(format!("reg.example/kube-apiserver:{image}"));
                container["command"] = json!(["kube-apiserver", flag]);
            });
            let read = ApiserverPod::read(&pod).unwrap().instance;
            assert_eq!(read.gates.unwrap().of_another_version(), expected, "{image} {flag}");
        }
    }

    #[test]
    fn a_version_that_cannot_be_read_is_said() {
        for image in ["kube-apiserver", "kube-apiserver:latest", "kube-apiserver@sha256:00"] {
            let pod = pod(|pod| pod["spec"]["containers"][0]["image"] = json!(image));
            assert_eq!(gate(&pod), (None, Gate::Unknown, Some("VersionUnreadable")), "{image}");
        }
    }

    #[test]
    fn only_a_mirror_pod_of_its_own_node_counts() {
        for patch in [
            |pod: &mut Value| pod["metadata"]["annotations"] = json!({"x": "y"}),
            |pod: &mut Value| pod["metadata"]["ownerReferences"] = json!([]),
            |pod: &mut Value| pod["metadata"]["ownerReferences"][0]["name"] = json!("other"),
            |pod: &mut Value| pod["metadata"]["ownerReferences"][0]["kind"] = json!("ReplicaSet"),
            |pod: &mut Value| {
                pod["spec"]["containers"][0]["name"] = json!("etcd");
                pod["spec"]["containers"][0]["command"] = json!(["etcd", "--v=2"]);
            },
        ] {
            assert_eq!(ApiserverPod::read(&pod(patch)), None);
        }
    }

    #[test]
    fn who_answers_without_a_mirror_pod_is_an_instance_too() {
        let seen = ApiserverPod::read(&pod(|_| ())).unwrap();
        let addresses =
            |list: &[&str]| list.iter().map(|a| (*a).to_owned()).collect::<BTreeSet<_>>();
        for (pods, endpoints, served, expected) in [
            (vec![&seen], None, None, vec![("cp1", Some(20))]),
            (vec![&seen], Some(addresses(&["10.0.0.1"])), None, vec![("cp1", Some(20))]),
            (vec![&seen], Some(addresses(&["192.168.0.1"])), None, vec![("cp1", Some(20))]),
            (
                vec![&seen],
                Some(addresses(&["10.0.0.1", "10.0.0.2"])),
                Some(Minor(20)),
                vec![("10.0.0.2", None), ("cp1", Some(20))],
            ),
            (vec![], Some(addresses(&["10.0.0.2"])), Some(Minor(27)), vec![("10.0.0.2", Some(27))]),
            (vec![], None, Some(Minor(27)), vec![("apiserver", Some(27))]),
            (vec![], None, None, vec![]),
        ] {
            let all = instances(pods, endpoints.as_ref(), served);
            let seen: Vec<_> =
                all.iter().map(|i| (i.name.as_str(), i.minor.map(|m| m.0))).collect();
            assert_eq!(seen, expected);
        }
    }
}
