//! The condition `ProxyReady` of a `StreamingPolicy`.

use super::super::{Cluster, DesiredOnNodes, Policy, agent_placement::can_have_agent};
use crate::{
    api::ProxyMode,
    decision::{
        condition::ConditionOutcome,
        proxy::{DesiredStreams, Selected, proxy_ready},
    },
};

impl Cluster {
    /// Whether what the policy's proxy asks for is done; `None` where it asks for none.
    pub(super) fn proxy_ready(&self, name: &str, policy: &Policy) -> Option<ConditionOutcome> {
        let content = policy.content.as_ref().ok()?;
        let wanted = match &content.wish {
            DesiredOnNodes::Nothing => return None,
            DesiredOnNodes::Keep if content.facts.paused => DesiredStreams::Paused,
            DesiredOnNodes::Keep => DesiredStreams::Invalid,
            DesiredOnNodes::Proxy(proxy) => match proxy.mode {
                ProxyMode::Streams => DesiredStreams::Streams,
                ProxyMode::Disabled => DesiredStreams::Evidence,
            },
        };
        let mut older = self.wishes();
        older.truncate(older.iter().position(|(other, _)| *other == name).unwrap_or_default());
        let selected = self.nodes.iter().filter(|(_, node)| content.selects(&node.labels));
        let nodes = selected.map(|(node, known)| {
            // Who only wants flags away is served by whatever agent is there.
            let follows = older.iter().filter(|_| content.streams);
            let follows = follows.into_iter().find(|(_, other)| other.selects(&known.labels));
            let (ready, streams) = self.agent_streams(node);
            let follows = follows.map(|(other, _)| *other);
            Selected { node, possible: can_have_agent(&known.labels), follows, ready, streams }
        });
        let age = |name: &str, policy: &Policy| {
            (policy.created.is_none(), policy.created, name.to_owned())
        };
        let mine = age(name, policy);
        let unreadable = self
            .policies
            .iter()
            .find(|(other, policy)| policy.content.is_err() && age(other, policy) < mine);
        Some(proxy_ready(wanted, nodes, unreadable.map(|(other, _)| other.as_str())))
    }
}
