//! Many streams, a few at a time.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use tokio::time::MissedTickBehavior;

use super::{CanaryPod, Instance, attach::attach, exec::exec, forward::forward};
use crate::decision::canary::{Answer, Heard, Probe, Transport};

/// How long a stream may take from its request to the canary's answer.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// So many streams are open at once.
pub const AT_ONCE: usize = 4;

/// So many streams are begun in a second: a stream is a process on a node, and a dozen calls on the
/// way to it.
pub const PER_SECOND: u32 = 10;

/// So many streams are made to each pod through each apiserver.
pub const STREAMS: usize = KINDS.len();

/// One stream that is to be tried.
#[derive(Clone)]
struct Task {
    probe: usize,
    kind: usize,
    instance: Instance,
    pod: CanaryPod,
}

/// What is made, each over both transports.
#[derive(Clone, Copy)]
enum Kind {
    Exec,
    Attach,
    PortForward,
}

/// All that is made to one pod. Which fails tells whose kubectl does.
const KINDS: [(Kind, Transport); 6] = [
    (Kind::Exec, Transport::WebSocket),
    (Kind::Exec, Transport::Spdy),
    (Kind::Attach, Transport::WebSocket),
    (Kind::Attach, Transport::Spdy),
    (Kind::PortForward, Transport::WebSocket),
    (Kind::PortForward, Transport::Spdy),
];

/// Makes an exec, an attach and a port-forward into each pod through each apiserver, over a WebSocket and over
/// SPDY, pod after pod; `progress` hears how many of how many streams are through.
///
/// The probes come in the order of the pods, and of the apiservers for each.
pub async fn run(
    instances: &[Instance],
    pods: &[CanaryPod],
    mut progress: impl FnMut(usize, usize),
) -> Vec<Probe> {
    let pairs: Vec<(&Instance, &CanaryPod)> =
        pods.iter().flat_map(|pod| instances.iter().map(move |instance| (instance, pod))).collect();
    let mut heard: Vec<[Option<Heard>; STREAMS]> =
        pairs.iter().map(|_| [const { None }; STREAMS]).collect();
    let tasks: Vec<Task> = pairs
        .iter()
        .enumerate()
        .flat_map(|(probe, &(instance, pod))| {
            (0..STREAMS).map(move |kind| Task {
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
        heard[probe][kind] = Some(answer);
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

async fn stream_to(task: Task) -> (usize, usize, Heard) {
    let Task { probe, kind, instance, pod } = task;
    let stream = async {
        match KINDS[kind] {
            (Kind::Exec, transport) => exec(&instance.client, &pod, transport).await,
            (Kind::Attach, transport) => attach(&instance.client, &pod, transport).await,
            (Kind::PortForward, transport) => forward(&instance.client, &pod, transport).await,
        }
    };
    let heard = tokio::time::timeout(TIMEOUT, stream).await.unwrap_or_else(|_| {
        Heard::other(Answer::NoAnswer, &format!("nothing within {} s", TIMEOUT.as_secs()))
    });
    (probe, kind, heard)
}

fn probe(instance: &Instance, pod: &CanaryPod, heard: [Option<Heard>; STREAMS]) -> Option<Probe> {
    let mut heard = heard.into_iter();
    let mut next = || Some(Heard::both(&heard.next()??, &heard.next()??));
    let (exec, attach, forward) = (next()?, next()?, next()?);
    let [exec, attach, forward] =
        [&exec, &attach, &forward].map(|heard| (heard.answer, heard.said.as_str()));
    Some(Probe::new(&instance.name, &pod.node, exec, attach, forward))
}
