//! The watches, one task each, into one channel.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, TryStreamExt};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Config, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    agents,
    changes::{self, KUBEADM_CONFIG},
    metrics::{Kind, Metrics},
    state::WatchEvent,
};
use crate::{
    cluster::POD_FIELDS,
    kubernetes::{
        version::Minor,
        watch::{WatchBackoff, reason},
    },
};

/// Objects in one page of a list: a page of full Nodes is then about 2 MB.
const PAGE: u32 = 200;

/// A watch that keeps failing for this long is lost.
const LOST_AFTER: Duration = Duration::from_secs(45);

/// How often the apiserver is asked for its version.
const SERVED_EVERY: Duration = Duration::from_secs(60);

/// Starts all watches. They end when the set is dropped or nobody listens any more.
pub fn start(
    client: &Client,
    agents: Option<&agents::AgentsSettings>,
    settings: &changes::ChangesSettings,
    changes: &mpsc::Sender<WatchEvent>,
    metrics: &Metrics,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let config = Config::default().page_size(PAGE);
    let all = config.clone();
    let mut watch = Watches { changes, metrics, tasks: &mut tasks };
    watch.spawn(Kind::Node, Api::all(client.clone()), all.clone(), WatchEvent::Node);
    watch.spawn(Kind::StreamingPolicy, Api::all(client.clone()), all.clone(), WatchEvent::Policy);
    watch.spawn(Kind::StreamingNode, Api::all(client.clone()), all, WatchEvent::StreamingNode);
    let pods = Api::namespaced(client.clone(), "kube-system");
    watch.spawn(Kind::Pod, pods, config.clone().fields(POD_FIELDS), |event| {
        WatchEvent::Pod(Box::new(event))
    });
    let endpoints = Api::namespaced(client.clone(), "default");
    let one = config.clone().fields("metadata.name=kubernetes");
    watch.spawn(Kind::Endpoints, endpoints, one, WatchEvent::Endpoints);
    if settings.kubeadm {
        metrics.watch_healthy(Kind::KubeadmConfig, false);
        let maps = Api::namespaced(client.clone(), "kube-system");
        let one = config.clone().fields(&format!("metadata.name={KUBEADM_CONFIG}"));
        watch.spawn(Kind::KubeadmConfig, maps, one, |event| {
            WatchEvent::KubeadmConfig(Box::new(event))
        });
    }
    if let Some(changes::Published { namespace, name }) = &settings.flags {
        metrics.watch_healthy(Kind::Flags, false);
        let maps = Api::namespaced(client.clone(), namespace);
        let one = config.clone().fields(&format!("metadata.name={name}"));
        watch.spawn(Kind::Flags, maps, one, |event| WatchEvent::Flags(Box::new(event)));
    }
    if let Some(settings) = agents {
        for kind in Kind::AGENTS {
            metrics.watch_healthy(kind, false);
        }
        let sets = Api::namespaced(client.clone(), &settings.namespace);
        let one = config.clone().fields(&format!("metadata.name={}", settings.name));
        watch.spawn(Kind::DaemonSet, sets, one, |event| WatchEvent::DaemonSet(Box::new(event)));
        let pods = Api::namespaced(client.clone(), &settings.namespace);
        let ours = config.labels(&settings.label_selector());
        watch.spawn(Kind::AgentPod, pods, ours, |event| WatchEvent::AgentPod(Box::new(event)));
    }
    tasks.spawn(served(client.clone(), changes.clone()));
    tasks
}

struct Watches<'a> {
    changes: &'a mpsc::Sender<WatchEvent>,
    metrics: &'a Metrics,
    tasks: &'a mut JoinSet<()>,
}

impl Watches<'_> {
    fn spawn<K>(
        &mut self,
        kind: Kind,
        api: Api<K>,
        config: Config,
        wrap: fn(Event<K>) -> WatchEvent,
    ) where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let stream = watcher(api, config).backoff(WatchBackoff::default());
        let stream = stream.map_ok(move |event| (StepOutcome::of(&event), wrap(event)));
        let (changes, metrics) = (self.changes.clone(), self.metrics.clone());
        self.tasks.spawn(feed(kind, stream, changes, metrics));
    }
}

/// Passes a watch on, and tells when it is lost.
async fn feed(
    kind: Kind,
    stream: impl Stream<Item = watcher::Result<(StepOutcome, WatchEvent)>>,
    changes: mpsc::Sender<WatchEvent>,
    metrics: Metrics,
) {
    let mut streak = Streak::default();
    let mut stream = std::pin::pin!(stream);
    loop {
        let next = tokio::time::timeout(LOST_AFTER, stream.next()).await;
        let (outcome, change) = match next {
            Ok(None) => return,
            Ok(Some(Ok((outcome, change)))) => (outcome, Some(change)),
            Ok(Some(Err(error))) => {
                metrics.error(reason(&error));
                explain(kind, &error);
                (StepOutcome::Failed, None)
            }
            Err(_) => (StepOutcome::Quiet, None),
        };
        let turned = streak.turn(outcome, Instant::now());
        metrics.watch_healthy(kind, !streak.lost);
        if let Some(lost) = turned
            && changes.send(WatchEvent::Lost(kind, lost)).await.is_err()
        {
            return;
        }
        if let Some(change) = change
            && changes.send(change).await.is_err()
        {
            return;
        }
    }
}

/// What became of a watch's last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepOutcome {
    /// The apiserver is about to be asked for a list. Nothing has been answered yet.
    Asked,
    /// It has answered.
    Answered,
    /// It has refused, or could not be reached.
    Failed,
    /// Nothing was heard for as long as [`LOST_AFTER`].
    Quiet,
}

impl StepOutcome {
    fn of<K>(event: &Event<K>) -> Self {
        match event {
            Event::Init => Self::Asked,
            Event::InitApply(_) | Event::InitDone | Event::Apply(_) | Event::Delete(_) => {
                Self::Answered
            }
        }
    }
}

/// Steps in a row that brought no answer.
#[derive(Debug, Default)]
struct Streak {
    since: Option<Instant>,
    listing: bool,
    lost: bool,
}

impl Streak {
    /// Takes one more outcome; tells whether the watch is lost where that has changed.
    fn turn(&mut self, outcome: StepOutcome, now: Instant) -> Option<bool> {
        match outcome {
            StepOutcome::Answered => (self.since, self.listing) = (None, false),
            // Each attempt to list begins with this, the hundredth refused one, too.
            StepOutcome::Asked => {
                self.since.get_or_insert(now);
                self.listing = true;
            }
            StepOutcome::Failed => {
                self.since.get_or_insert(now);
            }
            // A watch in which nothing happens is well, as errors come back at once. A list that
            // does not come is not.
            StepOutcome::Quiet => self.since = self.since.filter(|_| self.listing),
        }
        let lost = self.since.is_some_and(|since| now.duration_since(since) >= LOST_AFTER);
        (std::mem::replace(&mut self.lost, lost) != lost).then_some(lost)
    }
}

fn explain(kind: Kind, error: &watcher::Error) {
    let code = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => Some(status.code),
        watcher::Error::WatchError(status) => Some(status.code),
        _ => None,
    };
    let advice = match (code, kind) {
        (Some(404), Kind::StreamingNode | Kind::StreamingPolicy) => {
            "its CustomResourceDefinition is not installed: helm upgrade, or sluice crds | kubectl apply -f -"
        }
        (Some(401 | 403), _) => {
            "the ServiceAccount may not list and watch it: see the chart's ClusterRole"
        }
        // An old resource version: the list that follows is the remedy.
        (Some(410), _) => "listing again",
        _ => "trying again",
    };
    tracing::warn!(kind = kind.as_str(), error = %error, advice, "watch interrupted");
}

/// Asks for the apiserver's version, for control planes that show no pods.
async fn served(client: Client, changes: mpsc::Sender<WatchEvent>) {
    let mut every = tokio::time::interval(SERVED_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        // An apiserver that does not answer now has not changed its version.
        if let Ok(info) = client.apiserver_version().await {
            let minor = Minor::running(&info.git_version).ok();
            if changes.send(WatchEvent::Served(minor)).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use StepOutcome::{Answered, Asked, Failed, Quiet};

    fn check(turns: &[(u64, StepOutcome, Option<bool>)]) {
        let start = Instant::now();
        let mut streak = Streak::default();
        for &(second, outcome, expected) in turns {
            let now = start + Duration::from_secs(second);
            assert_eq!(streak.turn(outcome, now), expected, "{outcome:?} at {second} s");
        }
    }

    #[test]
    fn a_watch_is_lost_after_a_streak_of_errors_and_back_with_the_first_answer() {
        check(&[
            (0, Failed, None),
            (30, Failed, None),
            (31, Answered, None),
            (32, Failed, None),
            (76, Failed, None),
            (77, Failed, Some(true)),
            (80, Failed, None),
            (81, Answered, Some(false)),
            (82, Answered, None),
        ]);
    }

    #[test]
    fn a_list_that_is_always_refused_is_lost_although_each_attempt_is_announced() {
        check(&[
            (0, Asked, None),
            (0, Failed, None),
            (30, Asked, None),
            (30, Failed, None),
            (45, Asked, Some(true)),
            (45, Failed, None),
            (49, Asked, None),
            (49, Answered, Some(false)),
        ]);
    }

    #[test]
    fn quiet_is_well_in_a_watch_and_not_in_a_list() {
        check(&[(0, Asked, None), (1, Answered, None), (46, Quiet, None), (91, Quiet, None)]);
        check(&[(0, Failed, None), (45, Quiet, None), (90, Quiet, None)]);
        check(&[(0, Asked, None), (45, Quiet, Some(true)), (90, Quiet, None)]);
    }
}
