//! The node agents, as the controller rolls them out: one DaemonSet for the whole operator.
//!
//! `template` writes down what is wanted, `stored` reads what is there and tells whether that is it.
//! Where agents are wanted is decided in [`crate::cluster`].

mod stored;
mod template;

use std::collections::BTreeMap;

use serde_json::Value;
pub use stored::StoredAgents;
pub(super) use stored::exactly;
pub use template::daemon_set;

use crate::{cluster::AGENT_LABELS, kubernetes::version::Minor};

/// The usual port of an agent's metrics, on the node's own network.
pub const HTTP_PORT: u16 = 15191;

/// How long an agent usually goes on with running streams after it was asked to end, in seconds.
pub const GRACE: u32 = 3_600;

/// Apiservers from here on know `seccompProfile`; earlier ones read an annotation.
const SECCOMP_FIELD: Minor = Minor(19);

/// Clusters from here on start a DaemonSet's new pod beside the old one where they are told to
/// (`maxSurge`, beta).
const SURGE: Minor = Minor(22);

/// How agents are rolled out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentsSettings {
    /// The namespace of the DaemonSet.
    pub namespace: String,
    /// The DaemonSet's name.
    pub name: String,
    /// The image, which holds this program.
    pub image: String,
    /// When it is pulled: Always, IfNotPresent or Never; `None` leaves it to the apiserver.
    pub pull_policy: Option<String>,
    /// The Secrets with which it is pulled.
    pub pull_secrets: Vec<String>,
    /// The agents' ServiceAccount.
    pub service_account: String,
    /// Their PriorityClass; `None` leaves it to the apiserver.
    pub priority_class: Option<String>,
    /// The container runtime's socket on the nodes, where the agents do not find it by themselves.
    pub cri_socket: Option<String>,
    /// The port of their metrics on the node's own network.
    pub port: u16,
    /// How long an agent goes on with running streams after it was asked to end, in seconds.
    pub grace: u32,
    /// What the agents log.
    pub log: String,
    /// The form of their log.
    pub log_format: String,
    /// The requests of an agent's container, by resource.
    pub requests: BTreeMap<String, String>,
    /// Its limits.
    pub limits: BTreeMap<String, String>,
    /// What else somebody wants of their pods.
    pub pod: PodExtras,
}

/// What an installation adds to the agents' pods; nothing of it takes the place of what is ours, but for
/// the tolerations.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PodExtras {
    /// More labels, on the DaemonSet as well.
    pub labels: BTreeMap<String, String>,
    /// More annotations.
    pub annotations: BTreeMap<String, String>,
    /// More environment variables, as a container has them.
    pub env: Vec<Value>,
    /// The taints that they tolerate, as a pod has them; without it, all.
    pub tolerations: Option<Vec<Value>>,
}

impl AgentsSettings {
    /// The labels that the agents' pods are known by. They never change: a DaemonSet's selector
    /// cannot.
    pub fn selector(&self) -> BTreeMap<&'static str, &str> {
        let own = [("app.kubernetes.io/instance", self.name.as_str())];
        AGENT_LABELS.into_iter().chain(own).collect()
    }

    /// The same as the apiserver takes it.
    pub fn label_selector(&self) -> String {
        let pairs: Vec<String> =
            self.selector().iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(",")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cluster::{Agents, AgentsOwner, NodeAccess, Selector};

    /// Every option given.
    pub(in crate::controller) fn settings() -> AgentsSettings {
        let amounts = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        AgentsSettings {
            namespace: "sluice-system".to_owned(),
            name: "sluice-agent".to_owned(),
            image: "mirror.example/sluice:1".to_owned(),
            pull_policy: Some("IfNotPresent".to_owned()),
            pull_secrets: vec!["mirror".to_owned()],
            service_account: "sluice-agent".to_owned(),
            priority_class: Some("system-node-critical".to_owned()),
            cri_socket: Some("/run/crio/crio.sock".to_owned()),
            port: 9191,
            grace: 600,
            log: "info".to_owned(),
            log_format: "json".to_owned(),
            requests: amounts(&[("cpu", "20m"), ("memory", "32Mi")]),
            limits: amounts(&[("memory", "256Mi")]),
            pod: PodExtras::default(),
        }
    }

    /// Agents for one policy, on nodes with any of these labels; without any, on every node.
    pub(in crate::controller) fn agents(labels: &[(&str, &str)]) -> Agents {
        let selectors = labels
            .iter()
            .map(|(key, value)| Selector::from([((*key).to_owned(), (*value).to_owned())]));
        let mut selectors: Vec<_> = selectors.collect();
        if selectors.is_empty() {
            selectors.push(Selector::new());
        }
        let owner = AgentsOwner { name: "streams".to_owned(), uid: "p".to_owned() };
        Agents { selectors, owners: vec![owner], access: NodeAccess::Streams }
    }

    #[test]
    fn the_label_selector_is_the_selector() {
        let text = settings().label_selector();
        assert_eq!(
            text,
            "app.kubernetes.io/component=agent,app.kubernetes.io/instance=sluice-agent,app.kubernetes.io/name=sluice"
        );
    }
}
