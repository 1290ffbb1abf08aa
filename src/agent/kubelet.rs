//! What the node's kubelet was started with, watched for changes.

mod crashes;

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use tokio::sync::watch;

use crate::{
    api::AgentReport,
    decision::migration::STREAMING_REDIRECTS,
    kubernetes::arguments::kubelet::{self, FlagValue},
    node::{
        gates::{self, Gates},
        host::Host,
        process::{self, Process},
        systemd::{self, Bus, Starts},
    },
};
use crashes::{Crashes, Running};

/// How often it is looked whether the kubelet still runs: one small file. A restarted one has to be
/// in the verdict within five seconds.
const LOOK: Duration = Duration::from_secs(1);

/// How long systemd may take to answer. The files are not looked at meanwhile.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of the node's kubelet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kubelet {
    /// Which process it is; `None` while there is none, or more than one.
    pub process: Option<(u32, u64)>,
    /// What its command line says about redirects; `Unreadable` while there is no such process. Of one
    /// that keeps exiting, what the last one had that was seen.
    pub flag: Option<FlagValue>,
    /// What its unit and the environment files say for its next start; `None` where they do not name
    /// the flag.
    pub next_start: Option<FlagValue>,
    /// Those of them that name it.
    pub files: Vec<String>,
    /// The runtime's endpoint on its command line or in its configuration file.
    pub endpoint: Option<String>,
    /// Whether its runtime is said to be another program: `--container-runtime=remote`, up to 1.26.
    pub remote: bool,
    /// The gates of streaming that its command line and its files set; `None` where that is not known.
    pub streaming_gates: Option<Gates>,
    /// How it exits, where it keeps exiting right after it starts.
    pub crashes: Option<String>,
}

/// Watches the kubelet until nobody listens any more. Files are looked at each time, too: they may
/// be edited long before the restart that makes them count.
pub async fn observe(host: Host, sender: watch::Sender<Kubelet>, turned: impl Fn()) {
    let mut systemd = Systemd::of(&host);
    let (mut known, mut last): (Option<Process>, Option<Process>) = (None, None);
    let mut crashes = Crashes::default();
    let mut gates = gates::Watch::default();
    let mut complained = false;
    let mut every = tokio::time::interval(LOOK);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = sender.closed() => return,
        }
        let mut several = false;
        if !known.as_ref().is_some_and(|process| process::runs(&host.proc(), process)) {
            known = match process::kubelet(&host.proc()) {
                Ok(process) => {
                    systemd.starts(process::unit(&host.proc(), &process));
                    if std::mem::take(&mut complained) {
                        tracing::info!(pid = process.pid, "the kubelet runs");
                    }
                    Some(process)
                }
                Err(why) => {
                    several = matches!(why, process::Error::Several(_));
                    if !std::mem::replace(&mut complained, true) {
                        tracing::warn!("{why}: what its flag is stays unknown");
                    }
                    None
                }
            };
        }
        let running = known.as_ref().and_then(|process| {
            let age = process::age(&host.proc(), process)?;
            Some(Running { process: (process.pid, process.start), age })
        });
        let streaming_gates = known.as_ref().and_then(|process| {
            let started = running.and_then(|running| SystemTime::now().checked_sub(running.age));
            gates.see(&host, process, started, &AgentReport::STREAMING_GATES)
        });
        if !several && crashes.has_to_ask(running) {
            crashes.see(running, systemd.ask().await.as_ref());
        }
        let ends = crashes.message();
        last = known.clone().or(last);
        let seen = known.as_ref().or(last.as_ref().filter(|_| ends.is_some()));
        let now = Kubelet {
            process: known.as_ref().map(|process| (process.pid, process.start)),
            crashes: ends,
            streaming_gates,
            ..read(&host, seen)
        };
        sender.send_if_modified(|before| {
            let changed = *before != now;
            if changed {
                tracing::info!(
                    pid = now.process.map(|(pid, _)| pid),
                    flag = now.flag.map(FlagValue::as_str),
                    next_start = now.next_start.map(FlagValue::as_str),
                    streaming_gates = ?now.streaming_gates,
                    crashes = now.crashes,
                    "how the kubelet is set"
                );
                *before = now;
            }
            changed
        });
        turned();
    }
}

/// The node's systemd, which starts the kubelet.
struct Systemd {
    socket: PathBuf,
    unit: String,
    complained: bool,
}

impl Systemd {
    fn of(host: &Host) -> Self {
        let socket = host.path(systemd::SOCKET);
        Self { socket, unit: systemd::KUBELET.to_owned(), complained: false }
    }

    /// The kubelet that runs is of this unit, if that can be seen.
    fn starts(&mut self, unit: Option<String>) {
        if let Some(unit) = unit {
            self.unit = unit;
        }
    }

    /// How the unit fares; `None` where systemd does not tell: a node without it, or one whose AppArmor
    /// keeps containers from the bus.
    async fn ask(&mut self) -> Option<Starts> {
        let bus = Bus::new(&self.socket, self.unit.clone());
        let asked = tokio::time::timeout(PATIENCE, bus.starts()).await;
        let error = match asked {
            Ok(Ok(starts)) => return Some(starts),
            Ok(Err(error)) => error,
            Err(_) => systemd::Error::Timeout,
        };
        if !std::mem::replace(&mut self.complained, true) {
            tracing::info!(
                %error,
                reason = error.reason(),
                "systemd does not tell how often it starts the kubelet: only starts that are seen count"
            );
        }
        None
    }
}

fn read(host: &Host, process: Option<&Process>) -> Kubelet {
    let flag = STREAMING_REDIRECTS.flag;
    let args =
        || process.iter().flat_map(|process| process.args.iter().skip(1)).map(String::as_str);
    let found = host.next_start(flag);
    Kubelet {
        process: process.map(|process| (process.pid, process.start)),
        flag: Some(process.map_or(FlagValue::Unreadable, |_| kubelet::boolean(args(), flag))),
        next_start: Some(found.says).filter(|says| *says != FlagValue::Absent),
        files: found.files,
        endpoint: kubelet::text(args(), "container-runtime-endpoint")
            .map(str::to_owned)
            .or_else(|| configured_endpoint(host, kubelet::text(args(), "config")?)),
        remote: kubelet::text(args(), "container-runtime") == Some("remote"),
        streaming_gates: None,
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
