//! Many streams, a few at a time.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use tokio::time::MissedTickBehavior;

use super::{CanaryPod, Instance, exec::exec, forward::forward, upgrade::Heard};
use crate::decision::canary::{Answer, Probe};

/// How long a stream may take from its request to the canary's answer.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// So many streams are open at once.
pub const AT_ONCE: usize = 4;

/// So many streams are begun in a second: a stream is a process on a node, and a dozen calls on the
/// way to it.
pub const PER_SECOND: u32 = 10;

/// One stream that is to be tried.
#[derive(Clone)]
struct Task {
    probe: usize,
    kind: Kind,
    instance: Instance,
    pod: CanaryPod,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exec,
    PortForward,
}

/// Makes an exec and a port-forward into each pod through each apiserver, pod after pod; `progress`
/// hears how many of how many streams are through.
///
/// The probes come in the order of the pods, and of the apiservers for each.
pub async fn run(
    instances: &[Instance],
    pods: &[CanaryPod],
    mut progress: impl FnMut(usize, usize),
) -> Vec<Probe> {
    let pairs: Vec<(&Instance, &CanaryPod)> =
        pods.iter().flat_map(|pod| instances.iter().map(move |instance| (instance, pod))).collect();
    let mut heard: Vec<[Option<Heard>; 2]> = pairs.iter().map(|_| [None, None]).collect();
    let tasks: Vec<Task> = pairs
        .iter()
        .enumerate()
        .flat_map(|(probe, &(instance, pod))| {
            [Kind::Exec, Kind::PortForward].map(|kind| Task {
                probe,
                kind,
                instance: instance.clone(),
                pod: pod.clone(),
            })
        })
        .collect();
    let (mut done, total) = (0, tasks.len());
    progress(done, total);
    let mut streams = std::pin::pin!(paced(tasks).map(stream_to).buffer_unordered(AT_ONCE));
    while let Some((probe, kind, answer)) = streams.next().await {
        heard[probe][usize::from(kind == Kind::PortForward)] = Some(answer);
        done += 1;
        progress(done, total);
    }
    pairs
        .into_iter()
        .zip(heard)
        .filter_map(|((instance, pod), heard)| probe(instance, pod, heard))
        .collect()
}

/// Gives the tasks out no faster than they may begin.
fn paced(tasks: Vec<Task>) -> impl stream::Stream<Item = Task> {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    stream::unfold((pace, tasks.into_iter()), |(mut pace, mut tasks)| async {
        let task = tasks.next()?;
        pace.tick().await;
        Some((task, (pace, tasks)))
    })
}

async fn stream_to(task: Task) -> (usize, Kind, Heard) {
    let Task { probe, kind, instance, pod } = task;
    let stream = async {
        match kind {
            Kind::Exec => exec(&instance.client, &pod).await,
            Kind::PortForward => forward(&instance.client, &pod).await,
        }
    };
    let heard = tokio::time::timeout(TIMEOUT, stream).await.unwrap_or_else(|_| {
        Heard::other(Answer::NoAnswer, &format!("nothing within {} s", TIMEOUT.as_secs()))
    });
    (probe, kind, heard)
}

fn probe(instance: &Instance, pod: &CanaryPod, heard: [Option<Heard>; 2]) -> Option<Probe> {
    let [Some(exec), Some(forward)] = heard else { return None };
    let [exec, forward] = [&exec, &forward].map(|heard| (heard.answer, heard.said.as_str()));
    Some(Probe::new(&instance.name, &pod.node, exec, forward))
}
