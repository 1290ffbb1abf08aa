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
        utils::Backoff,
        watcher::{self, Config, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    metrics::{Kind, Metrics},
    world::Change,
};
use crate::{cluster::POD_SELECTOR, decision::version::Minor};

/// Objects in one page of a list: a page of full Nodes is then about 2 MB.
const PAGE: u32 = 200;

/// A watch that keeps failing for this long is lost.
const LOST_AFTER: Duration = Duration::from_secs(45);

/// How often the apiserver is asked for its version.
const SERVED_EVERY: Duration = Duration::from_secs(60);

/// Starts all watches. They end when the set is dropped or nobody listens any more.
pub fn start(client: &Client, changes: &mpsc::Sender<Change>, metrics: &Metrics) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let config = Config::default().page_size(PAGE);
    let all = config.clone();
    let mut watch = Watches { changes, metrics, tasks: &mut tasks };
    watch.spawn(Kind::Node, Api::all(client.clone()), all.clone(), Change::Node);
    watch.spawn(Kind::StreamingPolicy, Api::all(client.clone()), all.clone(), Change::Policy);
    watch.spawn(Kind::StreamingNode, Api::all(client.clone()), all, Change::StreamingNode);
    let pods = Api::namespaced(client.clone(), "kube-system");
    watch.spawn(Kind::Pod, pods, config.clone().labels(POD_SELECTOR), |event| {
        Change::Pod(Box::new(event))
    });
    let endpoints = Api::namespaced(client.clone(), "default");
    let one = config.fields("metadata.name=kubernetes");
    watch.spawn(Kind::Endpoints, endpoints, one, Change::Endpoints);
    tasks.spawn(served(client.clone(), changes.clone()));
    tasks
}

struct Watches<'a> {
    changes: &'a mpsc::Sender<Change>,
    metrics: &'a Metrics,
    tasks: &'a mut JoinSet<()>,
}

impl Watches<'_> {
    fn spawn<K>(&mut self, kind: Kind, api: Api<K>, config: Config, wrap: fn(Event<K>) -> Change)
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let stream = watcher(api, config).backoff(Patience::default()).map_ok(wrap);
        let (changes, metrics) = (self.changes.clone(), self.metrics.clone());
        self.tasks.spawn(feed(kind, stream, changes, metrics));
    }
}

/// Passes a watch on, and tells when it is lost.
async fn feed(
    kind: Kind,
    stream: impl Stream<Item = watcher::Result<Change>>,
    changes: mpsc::Sender<Change>,
    metrics: Metrics,
) {
    let mut streak = Streak::default();
    let mut stream = std::pin::pin!(stream);
    loop {
        // A watch that went quiet after its last error has recovered: errors come back at once.
        let next = tokio::time::timeout(LOST_AFTER, stream.next()).await;
        let (change, failed) = match next {
            Ok(None) => return,
            Ok(Some(Ok(change))) => (Some(change), false),
            Ok(Some(Err(error))) => {
                metrics.error(reason(&error));
                explain(kind, &error);
                (None, true)
            }
            Err(_) => (None, false),
        };
        let turned = streak.turn(failed, Instant::now());
        metrics.watch_healthy(kind, !streak.lost);
        if let Some(lost) = turned
            && changes.send(Change::Lost(kind, lost)).await.is_err()
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

/// Errors in a row.
#[derive(Debug, Default)]
struct Streak {
    since: Option<Instant>,
    lost: bool,
}

impl Streak {
    /// Takes one more outcome; tells whether the watch is lost where that has changed.
    fn turn(&mut self, failed: bool, now: Instant) -> Option<bool> {
        let since = failed.then(|| *self.since.get_or_insert(now));
        self.since = since;
        let lost = since.is_some_and(|since| now.duration_since(since) >= LOST_AFTER);
        (std::mem::replace(&mut self.lost, lost) != lost).then_some(lost)
    }
}

fn reason(error: &watcher::Error) -> &'static str {
    match error {
        watcher::Error::InitialListFailed(_) => "WatchListFailed",
        watcher::Error::WatchStartFailed(_) => "WatchStartFailed",
        watcher::Error::WatchError(_) => "WatchEnded",
        watcher::Error::WatchFailed(_) => "WatchFailed",
        watcher::Error::NoResourceVersion => "WatchNoResourceVersion",
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
async fn served(client: Client, changes: mpsc::Sender<Change>) {
    let mut every = tokio::time::interval(SERVED_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        // An apiserver that does not answer now has not changed its version.
        if let Ok(info) = client.apiserver_version().await {
            let minor = info.git_version.parse::<Minor>().ok();
            if changes.send(Change::Served(minor)).await.is_err() {
                return;
            }
        }
    }
}

/// Between attempts of a watch: doubling from a quarter of a second to four. The default goes to
/// 30 s, which is how long a verdict would be old after an apiserver's restart; one leader with
/// five watches is no load that needs it.
#[derive(Debug, Default)]
struct Patience {
    failures: u32,
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = Duration::from_millis(250 << self.failures.min(4));
        self.failures += 1;
        Some(wait)
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_lost_after_a_streak_of_errors_and_back_with_the_first_success() {
        let start = Instant::now();
        let mut streak = Streak::default();
        for (second, failed, expected) in [
            (0, true, None),
            (30, true, None),
            (31, false, None),
            (32, true, None),
            (76, true, None),
            (77, true, Some(true)),
            (80, true, None),
            (81, false, Some(false)),
            (82, false, None),
        ] {
            let now = start + Duration::from_secs(second);
            assert_eq!(streak.turn(failed, now), expected, "at {second} s");
        }
    }

    #[test]
    fn patience_is_bounded() {
        let waits: Vec<u128> = Patience::default().take(7).map(|d| d.as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 4000, 4000]);
    }
}
