//! Trials: execs, attaches and port-forwards into the canary's pods, through each apiserver that is asked for.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use kube::{Client, Config};

use super::state::DueTrial;
use crate::{
    canary::{self, CanaryPod, Instance},
    decision::{
        canary::{Answer, Failure, Probe, failures},
        change::{Tried, Trouble},
        names::NameSummary,
    },
};

/// How things are tried out; clones share it.
#[derive(Clone)]
pub struct CanaryRunner(Arc<Inner>);

struct Inner {
    config: Config,
    settings: Option<canary::CanarySettings>,
}

impl CanaryRunner {
    /// Tries with clients made from this configuration, in the pods of `settings`; without them
    /// nothing can be tried, and so nothing passes.
    pub fn new(config: Config, settings: Option<canary::CanarySettings>) -> Self {
        Self(Arc::new(Inner { config, settings }))
    }

    /// Carries out a trial.
    pub(super) async fn try_out(&self, due: DueTrial) -> Tried {
        let tried = self.probe(&due).await;
        let at = Timestamp::now();
        match tried {
            Ok((probes, untried)) => judge(&probes, &untried, at),
            Err(trouble) => Tried { message: trouble.message.clone(), trouble: Some(trouble), at },
        }
    }

    async fn probe(&self, due: &DueTrial) -> Result<(Vec<Probe>, Vec<String>), Trouble> {
        let Inner { config, settings } = &*self.0;
        let Some(settings) = settings else {
            return Err(Trouble {
                reason: "CanaryMissing",
                message: "there are no canaries to try execs with: the chart brings them with \
                          canary.enabled=true."
                    .to_owned(),
            });
        };
        let failed = |error: canary::Error| {
            let message = match std::error::Error::source(&error) {
                Some(source) => format!("no exec can be tried: {error}: {source}."),
                None => format!("no exec can be tried: {error}."),
            };
            Trouble { reason: error.reason(), message }
        };
        let client = Client::try_from(config.clone()).map_err(|source| {
            let message = format!("no exec can be tried: {source}.");
            Trouble { reason: "Client", message }
        })?;
        let all = canary::instances(config, &client).await.map_err(failed)?;
        let asked = |instance: &&Instance| due.trial.through.contains(&instance.name);
        let mut through: Vec<Instance> = all.iter().filter(asked).cloned().collect();
        if let Some(missing) =
            due.trial.through.iter().find(|name| !through.iter().any(|i| i.name == **name))
        {
            return Err(Trouble {
                reason: Answer::ApiserverUnreachable.as_str(),
                message: format!(
                    "the apiserver on {missing} does not answer for the Service kubernetes."
                ),
            });
        }
        if let Some(url) = &due.front {
            through.extend(canary::in_front(config, url, &all).map_err(failed)?);
        }
        let pods = canary::pods(&client, &settings.namespace, &settings.selector).await;
        let mut pods = canary::by_node(pods.map_err(failed)?);
        let mut untried = Vec::new();
        let mut ready: Vec<CanaryPod> = Vec::new();
        for node in &due.nodes {
            match pods.remove(node).filter(|pod| pod.ready) {
                Some(pod) => ready.push(pod),
                None => untried.push(node.clone()),
            }
        }
        if ready.is_empty() || (due.trial.nodes.is_some() && !untried.is_empty()) {
            return Err(Trouble {
                reason: "CanaryNotReady",
                message: format!(
                    "no canary is ready on {}: look at the pods in namespace {}.",
                    few(&untried),
                    settings.namespace
                ),
            });
        }
        Ok((canary::run(&through, &ready, |_: usize, _: usize| ()).await, untried))
    }
}

/// What the probes come to.
fn judge(probes: &[Probe], untried: &[String], at: Timestamp) -> Tried {
    let through: BTreeSet<&str> = probes.iter().map(|probe| probe.instance.as_str()).collect();
    let through: NameSummary<'_> = through.into_iter().collect();
    if let Some(Failure { answer, nodes, instances, said, advice }) =
        failures(probes).into_iter().next()
    {
        let said = if said.is_empty() { said } else { format!(" ({said})") };
        let message = format!(
            "exec, attach or port-forward to {nodes} through {instances} does not work{said}. {advice}"
        );
        let trouble = Trouble { reason: answer.as_str(), message: message.clone() };
        return Tried { trouble: Some(trouble), message, at };
    }
    let mut nodes: Vec<&str> = probes.iter().map(|probe| probe.node.as_str()).collect();
    nodes.dedup();
    let mut message = match nodes.as_slice() {
        [only] => {
            format!("Exec, attach and port-forward to {only} were answered through {through}.")
        }
        all => format!(
            "Execs, attaches and port-forwards to {} nodes were answered through {through}.",
            all.len()
        ),
    };
    if !untried.is_empty() {
        message += &format!(" No canary is ready on {}: not tried.", few(untried));
    }
    Tried { trouble: None, message, at }
}

fn few(names: &[String]) -> NameSummary<'_> {
    names.iter().map(String::as_str).collect()
}
