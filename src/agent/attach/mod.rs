//! Brings the node's streams to the relay, and lets them go where that does not work.
//!
//! The kernel sends connections to the runtime's streaming server to the relay for a few seconds at
//! a time (`rules`), and is told to go on only after a probe has just come through the same rules
//! and the same relay (`probe`). An agent that is dead, hangs, or cannot reach the runtime
//! says nothing, and streams go straight to the runtime.

mod certificate;
mod nft;
mod probe;
mod rules;
mod state;

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    cri::{self, Own, Runtime, Server},
    kubelet::Kubelet,
};
use crate::{
    api::{ByteRate, FailurePolicy, Proxy},
    controller::shutdown::Trigger,
    decision::migration::STREAMING_REDIRECTS,
    node::host::Host,
    relay::{Limits, Relay},
};
use nft::Nft;
pub use rules::RELAY_MARK;
use rules::{Family, LIFETIME};
pub use state::{Failure, Outcome, Streams, Want};

/// Between two probes.
const RENEW: Duration = Duration::from_secs(2);

/// How often a runtime that answers is asked again where it streams; one that does not answer any
/// more is asked at once.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// How often a streaming server that is left alone is asked whether it answers.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// An agent that ends because nobody wants it any more may learn the one before the other.
pub const FAREWELL: Duration = Duration::from_secs(3);

/// What is known of the runtime and of the streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The runtime; `None` while it does not tell.
    pub runtime: Option<Runtime>,
    /// Whether its streaming server answers from this node.
    pub reachable: bool,
    /// Whether a kubelet trusts what the streaming server shows, where it speaks TLS and lets that
    /// be seen.
    pub trusted: Option<bool>,
    /// What becomes of streams.
    pub outcome: Outcome,
}

/// How streams are brought to the relay.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The relay's port.
    pub relay_port: u16,
    /// The nft program.
    pub nft: PathBuf,
    /// The runtime's socket on the node, where somebody says so.
    pub cri_socket: Option<String>,
    /// Our own container.
    pub own: Own,
}

/// What the kernel holds of our rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Installed {
    /// Nobody knows: another agent may have left something.
    Unknown,
    /// Nothing.
    Nothing,
    /// The rules for this streaming server.
    For(SocketAddr, FailurePolicy),
}

/// The loop's state.
pub struct Attachment {
    settings: Settings,
    nft: Nft,
    host: Host,
    relay: Relay,
    runtime: Option<Runtime>,
    asked: Option<Instant>,
    /// The socket at which the runtime answered last.
    socket: Option<PathBuf>,
    /// The kubelet that ran when the runtime answered last: dockershim is a part of the kubelet.
    told_under: Option<(u32, u64)>,
    looked: Option<Instant>,
    reachable: bool,
    trusted: Option<bool>,
    installed: Installed,
    /// Whether streams that do not come through the relay are refused.
    refusing: bool,
    renewed: Option<Instant>,
}

impl Attachment {
    /// Nothing attached yet.
    pub fn new(settings: Settings, host: Host, relay: Relay) -> Self {
        Self {
            nft: Nft(settings.nft.clone()),
            settings,
            host,
            relay,
            runtime: None,
            asked: None,
            socket: None,
            told_under: None,
            looked: None,
            reachable: false,
            trusted: None,
            installed: Installed::Unknown,
            refusing: false,
            renewed: None,
        }
    }

    /// Does as `wishes` say until `stop` resolves, then lets streams go and tells `unattached` once
    /// the kernel sends nothing more to the relay.
    pub async fn run(
        mut self,
        mut wishes: watch::Receiver<Option<Proxy>>,
        kubelet: watch::Receiver<Kubelet>,
        sender: watch::Sender<Option<Attached>>,
        turned: impl Fn(),
        stop: impl Future<Output = ()>,
        unattached: Trigger,
    ) {
        let mut stop = std::pin::pin!(stop);
        let mut complaint = None;
        loop {
            let wish = wishes.borrow_and_update().clone();
            self.relay.set_limits(limits(wish.as_ref()));
            let want = Want::of(wish.as_ref());
            let seen = kubelet.borrow().clone();
            let failure = self.turn(want, &seen).await.err();
            turned();
            tell(&mut complaint, failure.as_ref());
            let renewed = self.renewed.map(|at| at.elapsed());
            let attached = Attached {
                runtime: self.runtime.clone(),
                reachable: self.reachable,
                trusted: self.trusted,
                outcome: state::judge(want, renewed, self.refusing, failure.as_ref()),
            };
            sender.send_if_modified(|before| {
                let changed = before.as_ref() != Some(&attached);
                *before = Some(attached);
                changed
            });
            tokio::select! {
                biased;
                () = &mut stop => break,
                Ok(()) = wishes.changed() => {}
                () = tokio::time::sleep(RENEW) => {}
            }
        }
        self.let_go(&mut wishes, &unattached).await;
    }

    /// One turn towards what is wanted.
    async fn turn(&mut self, want: Want, kubelet: &Kubelet) -> Result<(), Failure> {
        if want == Want::Nothing {
            self.detach().await?;
        }
        self.ask(kubelet).await?;
        let Some(runtime) = &self.runtime else { return Ok(()) };
        let Some(streaming) = runtime.server.as_ref().map(|server| server.address) else {
            let failure = through_kubelet(runtime);
            self.reachable = false;
            self.detach().await?;
            return Err(failure);
        };
        match want {
            Want::Nothing => self.look(streaming).await,
            Want::Relay(policy) => self.attach(streaming, policy).await,
        }
    }

    /// Asks the runtime where it streams, if that is not known, was long ago, or was under another
    /// kubelet.
    async fn ask(&mut self, kubelet: &Kubelet) -> Result<(), Failure> {
        let lately = self.asked.is_some_and(|at| at.elapsed() < ASK_AGAIN);
        let restarted = kubelet.process.is_some() && kubelet.process != self.told_under;
        if self.runtime.is_some() && lately && !restarted {
            return Ok(());
        }
        let told = self.settings.cri_socket.as_deref().or(kubelet.endpoint.as_deref());
        let mut sockets = self.host.sockets(told, kubelet.remote);
        // One before it that hangs would be waited for each time.
        sockets.sort_by_key(|socket| Some(socket) != self.socket.as_ref());
        // A runtime that was found before the kubelet was seen may not be the kubelet's: containerd knows
        // our container, too, where cri-dockerd has it run. While the kubelet is stopped, the runtime stays.
        let is_known = told.is_some() || kubelet.process.is_some();
        if is_known && !self.socket.as_ref().is_some_and(|socket| sockets.contains(socket)) {
            self.runtime = None;
        }
        match cri::find(sockets, &self.settings.own).await {
            Ok((socket, runtime)) => {
                if self.runtime.as_ref() != Some(&runtime) {
                    tracing::info!(
                        runtime = runtime.name,
                        version = runtime.version,
                        server = ?runtime.server,
                        "the container runtime"
                    );
                    self.looked = None;
                }
                self.trusted = match runtime.server.as_ref().filter(|server| server.tls) {
                    None => None,
                    Some(Server { address, host, .. }) => {
                        certificate::is_trusted(*address, host, &self.host.authorities()).await
                    }
                };
                (self.socket, self.runtime) = (Some(socket), Some(runtime));
                self.asked = Some(Instant::now());
                self.told_under = kubelet.process.or(self.told_under);
                Ok(())
            }
            Err(error) => {
                // The streams of a runtime that only does not answer this are carried on.
                if self.runtime.is_none() {
                    return Err(failure(error.reason(), &error));
                }
                self.asked = Some(Instant::now());
                // Until a new kubelet's dockershim listens; one that hangs would hold up what follows.
                if !matches!(error, cri::Error::Connect { .. }) {
                    self.told_under = kubelet.process.or(self.told_under);
                }
                Ok(())
            }
        }
    }

    /// Sends streams to the relay for a while, if one of our own has just come through.
    async fn attach(
        &mut self,
        streaming: SocketAddr,
        policy: FailurePolicy,
    ) -> Result<(), Failure> {
        if self.installed != Installed::For(streaming, policy) {
            self.relay.allow([streaming]);
            let family = Family::of(streaming);
            let script = rules::install(streaming, self.settings.relay_port, policy);
            self.nft.run(&script).await.map_err(|error| failure(error.reason(), &error))?;
            // Rules for a streaming server that was in the other family. A kernel without that
            // family has none, and refuses to be asked.
            let _ = self.nft.run(&rules::remove(family.other())).await;
            self.installed = Installed::For(streaming, policy);
            self.refusing = policy == FailurePolicy::Closed;
        }
        if let Err(error) = probe::through_relay(&self.relay, streaming).await {
            // Someone has taken our rules away, or the runtime is somewhere else now.
            self.installed = Installed::Unknown;
            self.reachable = probe::straight(streaming).await.is_ok();
            if !self.reachable {
                self.runtime = None;
            }
            return Err(failure(error.reason(), &error));
        }
        self.reachable = true;
        if let Err(error) = self.nft.run(&rules::renew(streaming)).await {
            self.installed = Installed::Unknown;
            return Err(failure(error.reason(), &error));
        }
        self.renewed = Some(Instant::now());
        Ok(())
    }

    /// Looks whether the streaming server answers a kubelet that proxies.
    async fn look(&mut self, streaming: SocketAddr) -> Result<(), Failure> {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_AGAIN) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let answered = probe::straight(streaming).await;
        self.reachable = answered.is_ok();
        if !self.reachable {
            self.runtime = None;
        }
        answered.map_err(|error| failure(error.reason(), &error))
    }

    /// Takes the rules away, if there are any.
    async fn detach(&mut self) -> Result<(), Failure> {
        if self.installed == Installed::Nothing {
            return Ok(());
        }
        let [ip, ip6] = Family::ALL;
        // A kernel without IPv6 refuses the second, and has no rules of it.
        let _ = self.nft.run(&rules::remove(ip6)).await;
        self.nft.run(&rules::remove(ip)).await.map_err(|error| failure(error.reason(), &error))?;
        tracing::info!("no rule of ours is left on this node");
        (self.installed, self.refusing) = (Installed::Nothing, false);
        self.renewed = None;
        Ok(())
    }

    /// The agent ends. Streams go straight to the runtime from now on; where they are to be refused
    /// without an agent, they are, unless nobody wants that any more.
    async fn let_go(&mut self, wishes: &mut watch::Receiver<Option<Proxy>>, unattached: &Trigger) {
        let gone = if self.refusing { self.forget().await } else { self.detach().await };
        if let Err(failure) = gone {
            tracing::warn!(reason = failure.reason, message = failure.message, "rules may be left");
            // The kernel goes on for as long as it was told to.
            let left = self.renewed.map(|at| LIFETIME.saturating_sub(at.elapsed()));
            tokio::time::sleep(left.unwrap_or_default()).await;
        }
        unattached.request();
        if !self.refusing {
            return;
        }
        let unwanted =
            |wish: &Option<Proxy>| Want::of(wish.as_ref()) != Want::Relay(FailurePolicy::Closed);
        // Nothing is taken while this waits, so no longer than streams go on anyway.
        let ended = async {
            self.relay.drained().await;
            tokio::time::sleep(FAREWELL).await;
        };
        tokio::select! {
            changed = wishes.wait_for(unwanted) => if changed.is_err() { return },
            () = ended => return,
        }
        if let Err(failure) = self.detach().await {
            tracing::warn!(reason = failure.reason, message = failure.message, "rules may be left");
        }
    }

    /// Sends nothing more to the relay; whatever else the rules say stays.
    async fn forget(&self) -> Result<(), Failure> {
        let [ip, ip6] = Family::ALL;
        // Only one of them has rules of ours.
        let Err(error) = self.nft.run(&rules::forget(ip)).await else { return Ok(()) };
        let other = self.nft.run(&rules::forget(ip6)).await;
        other.map_err(|_| failure(error.reason(), &error))
    }
}

/// Says what fails once, and once when it works again.
fn tell(complaint: &mut Option<&'static str>, failure: Option<&Failure>) {
    let reason = failure.map(|failure| failure.reason);
    if *complaint == reason {
        return;
    }
    match failure {
        Some(failure) => tracing::warn!(reason = failure.reason, "{}", failure.message),
        None => tracing::info!("streams are as they are wanted"),
    }
    *complaint = reason;
}

/// Such streams come to no port of the runtime. Seen of kubelets up to 1.19 with their own dockershim.
fn through_kubelet(runtime: &Runtime) -> Failure {
    let flag = STREAMING_REDIRECTS.flag;
    Failure {
        reason: state::THROUGH_KUBELET,
        message: format!(
            "{} streams through the kubelet's own port while the kubelet redirects, and cannot be \
             limited there: take --{flag} off the kubelet, and it streams from a port of its own",
            runtime.name
        ),
    }
}

fn failure(reason: &'static str, error: &dyn std::error::Error) -> Failure {
    Failure { reason, message: error.to_string() }
}

/// The limits of a wish. The schema and the controller let no unreadable rate through; should one
/// come all the same, it is no limit, as the node must not stand still.
pub fn limits(proxy: Option<&Proxy>) -> Limits {
    let rate = |rate: &ByteRate| rate.bytes_per_sec().unwrap_or(0);
    proxy.map_or(Limits::default(), |proxy| Limits {
        connection: rate(&proxy.max_connection_bytes_per_sec),
        node: rate(&proxy.max_node_bytes_per_sec),
    })
}

#[cfg(test)]
mod tests;
