//! The options that say how the agents on the nodes are started.

use std::collections::BTreeMap;

use crate::{
    controller::agents::{AgentsSettings, GRACE, HTTP_PORT, PodExtras},
    process::log,
};

/// How the controller rolls out agents; without an image it rolls out none.
#[derive(Clone, Debug, clap::Args)]
// Its group would be named like that of the command it is part of.
#[group(skip)]
#[command(next_help_heading = "Agents on the nodes")]
pub struct Args {
    /// The agents' image, this program's own. Without it no agents are rolled out.
    #[arg(long, value_name = "IMAGE")]
    agent_image: Option<String>,

    /// The DaemonSet's name.
    #[arg(long, value_name = "NAME", default_value = "sluice-agent")]
    agent_name: String,

    /// When the image is pulled [default: the apiserver's].
    #[arg(long, value_name = "POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    agent_pull_policy: Option<String>,

    /// A Secret with which the image is pulled; repeatable.
    #[arg(long, value_name = "NAME")]
    agent_pull_secret: Vec<String>,

    /// The agents' PriorityClass [default: the apiserver's].
    #[arg(long, value_name = "NAME")]
    agent_priority_class: Option<String>,

    /// The container runtime's socket on the nodes, below /run [default: the agents look].
    #[arg(long, value_name = "PATH")]
    agent_cri_socket: Option<String>,

    /// The port of the agents' metrics on their nodes.
    #[arg(long, value_name = "PORT", default_value_t = HTTP_PORT)]
    agent_port: u16,

    /// How many seconds an agent goes on with running streams after it was asked to end.
    #[arg(long, value_name = "SECONDS", default_value_t = GRACE)]
    agent_grace: u32,

    /// What the agents log.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    agent_log: String,

    /// The form of their log.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    agent_log_format: log::Format,

    /// What else the agents' pods have, as JSON with any of labels, annotations, env and tolerations.
    #[arg(long, value_name = "JSON", value_parser = pod_extras)]
    agent_pod: Option<PodExtras>,

    /// How much of a processor is reserved for an agent.
    #[arg(long, value_name = "QUANTITY")]
    agent_cpu_request: Option<String>,

    /// How much memory is reserved for an agent.
    #[arg(long, value_name = "QUANTITY")]
    agent_memory_request: Option<String>,

    /// How much memory an agent may use.
    #[arg(long, value_name = "QUANTITY")]
    agent_memory_limit: Option<String>,
}

fn pod_extras(text: &str) -> Result<PodExtras, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

impl Args {
    /// The settings, for agents of this ServiceAccount in this namespace; `None` where none are
    /// rolled out.
    pub fn settings(self, namespace: &str, account: &str) -> Option<AgentsSettings> {
        // What is empty was left out by a chart.
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let amounts = |pairs: [(&str, Option<String>); 2]| -> BTreeMap<String, String> {
            let given = pairs.into_iter().filter_map(|(key, value)| Some((key, given(value)?)));
            given.map(|(key, value)| (key.to_owned(), value)).collect()
        };
        Some(AgentsSettings {
            namespace: namespace.to_owned(),
            name: self.agent_name,
            image: given(self.agent_image)?,
            pull_policy: given(self.agent_pull_policy),
            pull_secrets: self.agent_pull_secret,
            service_account: account.to_owned(),
            priority_class: given(self.agent_priority_class),
            cri_socket: given(self.agent_cri_socket),
            port: self.agent_port,
            grace: self.agent_grace,
            log: self.agent_log,
            log_format: self.agent_log_format.as_str().to_owned(),
            requests: amounts([
                ("cpu", self.agent_cpu_request),
                ("memory", self.agent_memory_request),
            ]),
            limits: amounts([("memory", self.agent_memory_limit), ("cpu", None)]),
            pod: self.agent_pod.unwrap_or_default(),
        })
    }
}
