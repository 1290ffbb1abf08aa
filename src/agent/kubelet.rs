//! What the node's kubelet was started with, watched for changes.

mod crashes;

use std::{path::PathBuf, time::Duration};

use tokio::sync::watch;

use crate::{
    arguments::kubelet,
    decision::{evidence::Says, migration::STREAMING_REDIRECTS},
    node::{
        host::Host,
        process::{self, Process},
        systemd::{self, Bus, Starts},
    },
};
use crashes::Crashes;

/// How often it is looked whether the kubelet still runs: one small file. A restarted one has to be
/// in the verdict within five seconds.
const LOOK: Duration = Duration::from_secs(1);

/// How long systemd may take to tell: files are looked at meanwhile by nobody.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of the node's kubelet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kubelet {
    /// Which process it is; `None` while there is none, or more than one.
    pub process: Option<(u32, u64)>,
    /// What its command line says about redirects; `Unreadable` while there is no such process. Of one
    /// that ends again and again, what the last one had that was seen.
    pub flag: Option<Says>,
    /// What its unit and the environment files say for its next start; `None` where they do not name
    /// the flag.
    pub next_start: Option<Says>,
    /// Those of them that name it.
    pub files: Vec<String>,
    /// The runtime's endpoint on its command line or in its configuration file.
    pub endpoint: Option<String>,
    /// Whether its runtime is said to be another program: `--container-runtime=remote`, up to 1.26.
    pub remote: bool,
    /// How it ends, where it ends again and again right after its start.
    pub crashes: Option<String>,
}

/// Watches the kubelet until nobody listens any more. Files are looked at each time, too: they may
/// be edited long before the restart that makes them count.
pub async fn observe(host: Host, sender: watch::Sender<Kubelet>, turned: impl Fn()) {
    let bus = Bus::new(&host.path(systemd::SOCKET), systemd::KUBELET.to_owned());
    let (mut known, mut last): (Option<Process>, Option<Process>) = (None, None);
    let mut crashes = Crashes::default();
    let mut complained = false;
    let mut every = tokio::time::interval(LOOK);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = sender.closed() => return,
        }
        if !known.as_ref().is_some_and(|process| process::runs(&host.proc(), process)) {
            known = match process::kubelet(&host.proc()) {
                Ok(process) => {
                    if std::mem::take(&mut complained) {
                        tracing::info!(pid = process.pid, "the kubelet runs");
                    }
                    Some(process)
                }
                Err(why) => {
                    if !std::mem::replace(&mut complained, true) {
                        tracing::warn!("{why}: what its flag is stays unknown");
                    }
                    None
                }
            };
        }
        let age = known.as_ref().and_then(|process| process::age(&host.proc(), process));
        if crashes.has_to_ask(age) {
            crashes.see(age, starts(&bus).await.as_ref());
        }
        let ends = crashes.message();
        last = known.clone().or(last);
        let seen = known.as_ref().or(last.as_ref().filter(|_| ends.is_some()));
        let now = Kubelet {
            process: known.as_ref().map(|process| (process.pid, process.start)),
            crashes: ends,
            ..read(&host, seen)
        };
        sender.send_if_modified(|before| {
            let changed = *before != now;
            if changed {
                tracing::info!(
                    pid = now.process.map(|(pid, _)| pid),
                    flag = now.flag.map(Says::as_str),
                    next_start = now.next_start.map(Says::as_str),
                    crashes = now.crashes,
                    "the kubelet's redirect flag"
                );
                *before = now;
            }
            changed
        });
        turned();
    }
}

/// How systemd fares with it; `None` where it does not tell, as on a node without systemd.
async fn starts(bus: &Bus) -> Option<Starts> {
    let asked = tokio::time::timeout(PATIENCE, bus.starts()).await;
    match asked {
        Ok(Ok(starts)) => Some(starts),
        Ok(Err(error)) => {
            tracing::debug!(%error, "how often the kubelet was started is unknown");
            None
        }
        Err(_) => None,
    }
}

fn read(host: &Host, process: Option<&Process>) -> Kubelet {
    let flag = STREAMING_REDIRECTS.flag;
    let args =
        || process.iter().flat_map(|process| process.args.iter().skip(1)).map(String::as_str);
    let found = host.next_start(flag);
    Kubelet {
        process: process.map(|process| (process.pid, process.start)),
        flag: Some(process.map_or(Says::Unreadable, |_| kubelet::boolean(args(), flag))),
        next_start: Some(found.says).filter(|says| *says != Says::Absent),
        files: found.files,
        endpoint: kubelet::text(args(), "container-runtime-endpoint")
            .map(str::to_owned)
            .or_else(|| configured_endpoint(host, kubelet::text(args(), "config")?)),
        remote: kubelet::text(args(), "container-runtime") == Some("remote"),
        crashes: None,
    }
}

/// `containerRuntimeEndpoint` of the kubelet's configuration file, which has it since 1.27.
fn configured_endpoint(host: &Host, config: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        container_runtime_endpoint: Option<String>,
    }
    let path: PathBuf = host.path(config);
    let config: Config = serde_saphyr::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
    config.container_runtime_endpoint.filter(|endpoint| !endpoint.is_empty())
}
