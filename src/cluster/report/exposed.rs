//! The warning about runtimes that listen on more than loopback, for policies that take flags away.

use super::super::{Cluster, Policy};
use crate::decision::{
    apiserver::ControlPlane,
    condition::ConditionOutcome,
    migration::STREAMING_REDIRECTS,
    redirects::{
        exposed::{Exposed, runtime_exposed},
        node,
    },
};

impl Cluster {
    /// What a policy is told of the runtimes of the nodes that it selects, once these do not redirect;
    /// `None` where it takes no flags away.
    pub(super) fn exposed(&self, policy: &Policy) -> Option<ConditionOutcome> {
        let content = policy.content.as_ref().ok()?;
        content.facts.remediation?;
        let plane = ControlPlane::of(&self.instances, &STREAMING_REDIRECTS, content.facts.track);
        Some(runtime_exposed(self.nodes.iter().filter_map(|(name, node)| {
            let agent = self.agents.get(name)?;
            let (runtime, address) = agent.exposed.as_ref()?;
            let judged = node::judge(&STREAMING_REDIRECTS, &node.facts, &plane, false);
            let counts = content.selects(&node.labels)
                && self.vouches(agent, &node.origin)
                && !judged.redirects.possible();
            counts.then_some(Exposed { node: name, runtime, address: *address })
        })))
    }
}
