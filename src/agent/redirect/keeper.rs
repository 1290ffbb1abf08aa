//! What the kernel is told, and what has proven itself: one turn after the other.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use tokio::sync::Notify;

use super::{
    nft::Nft,
    probe::{self, By},
    rules::{self, Family, LIFETIME},
    runtime::Told,
    state::{self, Failure, Want, failure},
};
use crate::{
    agent::cri::{Runtime, Server},
    api::FailurePolicy,
    decision::migration::STREAMING_REDIRECTS,
    relay::Relay,
};

/// How often a streaming server that is left alone is asked whether it answers.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What the kernel holds of our rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Installed {
    /// Nobody knows: another agent may have left something.
    Unknown,
    /// Nothing.
    Nothing,
    /// The rules for these addresses of the streaming server.
    For(Vec<SocketAddr>, FailurePolicy),
}

/// What one turn has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// When streams were last proven to pass through the relay, at every address that answers.
    pub proven: Option<Instant>,
}

/// Who tells the kernel.
pub(super) struct Keeper {
    /// Where the relay takes streams, one address of each family that it has.
    listeners: Vec<SocketAddr>,
    nft: Nft,
    relay: Relay,
    /// Tells that the streaming server is not where the runtime said.
    pub lost: Arc<Notify>,
    pub installed: Installed,
    /// Whether streams that do not come through the relay are refused.
    pub refusing: bool,
    /// When a probe of each address last came through.
    pub proven: BTreeMap<SocketAddr, Instant>,
    looked: Option<(Server, Instant)>,
    /// Where the streaming server answers.
    pub answers: Option<SocketAddr>,
}

impl Keeper {
    /// One that has told nothing yet.
    pub fn new(listeners: Vec<SocketAddr>, nft: Nft, relay: Relay) -> Self {
        Self {
            listeners,
            nft,
            relay,
            lost: Arc::default(),
            installed: Installed::Unknown,
            refusing: false,
            proven: BTreeMap::new(),
            looked: None,
            answers: None,
        }
    }

    /// One turn towards what is wanted.
    pub async fn turn(&mut self, want: Want, told: &Told) -> Result<Found, Failure> {
        if want == Want::Nothing {
            self.detach().await?;
        }
        let Some(runtime) = &told.runtime else {
            self.answers = None;
            return told.failure.clone().map_or(Ok(Found::default()), Err);
        };
        let Some(server) = &runtime.server else {
            self.answers = None;
            self.detach().await?;
            return Err(through_kubelet(runtime));
        };
        match want {
            Want::Nothing => self.look(server).await,
            Want::Relay(policy) => self.attach(server, policy).await,
        }
    }

    /// Brings streams to the relay for a while, if one of our own has just come through.
    pub async fn attach(
        &mut self,
        server: &Server,
        policy: FailurePolicy,
    ) -> Result<Found, Failure> {
        self.install(server, policy).await?;
        let mut probed = self.probe(server).await;
        if probed.iter().any(|(_, proof)| matches!(proof, Err(probe::Error::PastRelay(_)))) {
            // Somebody has taken our rules away.
            (self.installed, self.refusing) = (Installed::Unknown, false);
            self.install(server, policy).await?;
            probed = self.probe(server).await;
        }
        self.answers = None;
        let (mut found, mut passed_by, mut silent) = (Found::default(), None, None);
        for (address, proof) in probed {
            let error = match proof {
                Ok(at) => {
                    self.proven.insert(address, at);
                    self.answers_at(address);
                    found.proven = Some(found.proven.map_or(at, |oldest: Instant| oldest.min(at)));
                    continue;
                }
                Err(error) => error,
            };
            self.pass_by(address).await;
            if probe::straight(address, server).await.is_ok() {
                self.answers_at(address);
                passed_by.get_or_insert(error);
            } else {
                silent.get_or_insert(error);
            }
        }
        // A name may have addresses at which nobody listens.
        let error = match (passed_by, silent) {
            (Some(error), _) => error,
            (None, Some(error)) if found.proven.is_none() => {
                self.lost.notify_one();
                self.installed = Installed::Unknown;
                return Err(failure(error.reason(), &error));
            }
            _ => return Ok(found),
        };
        // Whatever the rules are now, the next turn sets them right.
        self.installed = Installed::Unknown;
        if matches!(error, probe::Error::PastRelay(_)) {
            self.refusing = false;
            return Err(failure(error.reason(), &error));
        }
        Err(relay_fails(&error))
    }

    /// Has the kernel hold the rules for this streaming server, without anybody being brought to the
    /// relay by them yet.
    async fn install(&mut self, server: &Server, policy: FailurePolicy) -> Result<(), Failure> {
        let wanted = Installed::For(server.addresses.clone(), policy);
        if self.installed == wanted {
            return Ok(());
        }
        let stays =
            matches!(&self.installed, Installed::For(there, _) if *there == server.addresses);
        if !stays {
            self.proven.clear();
        }
        self.relay.allow(server.addresses.iter().copied());
        for family in Family::ALL {
            let own = |address: &SocketAddr| Family::of(*address) == family;
            let servers: Vec<SocketAddr> = server.addresses.iter().copied().filter(own).collect();
            let Some(first) = servers.first() else {
                // A kernel without that family has no rules of it, and refuses to be asked.
                let _ = self.nft.run(&rules::remove(family)).await;
                continue;
            };
            let Some(relay) = self.listeners.iter().copied().find(own) else {
                return Err(cannot_listen(*first));
            };
            let left = |(server, at): (&SocketAddr, &Instant)| {
                let left = LIFETIME.checked_sub(at.elapsed()).filter(|left| !left.is_zero())?;
                own(server).then_some((*server, left))
            };
            let proven: Vec<_> = self.proven.iter().filter_map(left).collect();
            let script = rules::install(&servers, relay, policy, &proven);
            self.nft.run(&script).await.map_err(|error| failure(error.reason(), &error))?;
        }
        self.installed = wanted;
        self.refusing = policy == FailurePolicy::Closed;
        Ok(())
    }

    /// Probes each address: when its streams were last proven to pass through the relay.
    async fn probe(&self, server: &Server) -> Vec<(SocketAddr, Result<Instant, probe::Error>)> {
        join_all(
            server
                .addresses
                .iter()
                .map(async |address| (*address, self.prove(*address, server).await)),
        )
        .await
    }

    async fn prove(&self, address: SocketAddr, server: &Server) -> Result<Instant, probe::Error> {
        let ask = |by| probe::through_relay(&self.relay, address, server, by);
        if self.proven.get(&address).is_some_and(|at| at.elapsed() < LIFETIME) {
            match ask(By::Live).await {
                // The element may have expired meanwhile.
                Err(probe::Error::PastRelay(_)) => {}
                proof => return proof,
            }
        }
        ask(By::Mark).await?;
        ask(By::Live).await
    }

    /// New streams to an address whose probe has failed go past the relay, or are refused.
    async fn pass_by(&mut self, address: SocketAddr) {
        if self.proven.remove(&address).is_none() {
            return;
        }
        if let Err(error) = self.nft.run(&rules::pass_by(address)).await {
            let reason = error.reason();
            tracing::warn!(reason, %error, "streams come to the relay for some seconds more");
        }
    }

    /// Looks whether the streaming server answers a kubelet that proxies.
    async fn look(&mut self, server: &Server) -> Result<Found, Failure> {
        if self.looked.as_ref().is_some_and(|(looked, at)| {
            looked == server && at.elapsed() < LOOK_AGAIN && self.answers.is_some()
        }) {
            return Ok(Found::default());
        }
        self.looked = Some((server.clone(), Instant::now()));
        self.answers = None;
        let mut silent = None;
        for address in &server.addresses {
            match probe::straight(*address, server).await {
                Ok(()) => self.answers_at(*address),
                Err(error) => silent = silent.or(Some(error)),
            }
        }
        match silent {
            // A name may have addresses at which nobody listens.
            Some(error) if self.answers.is_none() => {
                self.lost.notify_one();
                Err(failure(error.reason(), &error))
            }
            _ => Ok(Found::default()),
        }
    }

    /// The streaming server answers there. Of several addresses one that others can reach counts.
    fn answers_at(&mut self, address: SocketAddr) {
        if self.answers.is_none_or(|known| known.ip().is_loopback()) {
            self.answers = Some(address);
        }
    }

    /// Takes the rules away, if there are any.
    async fn detach(&mut self) -> Result<(), Failure> {
        if self.installed == Installed::Nothing {
            return Ok(());
        }
        super::remove(&self.nft).await.map_err(|error| failure(error.reason(), &error))?;
        tracing::info!("no rule of ours is left on this node");
        (self.installed, self.refusing) = (Installed::Nothing, false);
        self.proven.clear();
        Ok(())
    }

    /// One turn of an agent that is about to end and that nobody succeeds. New streams go straight to
    /// the runtime; where they would be refused without an agent, it takes them for as long as it goes
    /// on with others.
    pub async fn leave(&mut self, want: Want, told: &Told) -> Result<Found, Failure> {
        if want == Want::Relay(FailurePolicy::Closed) {
            return self.turn(want, told).await;
        }
        self.turn(Want::Nothing, told).await?;
        Err(ending())
    }

    /// Brings nothing more to the relay, and goes on refusing what does not come through one.
    pub async fn refuse(&mut self) {
        if let Err(failure) = self.forget().await {
            tracing::warn!(reason = failure.reason, message = failure.message, "rules may be left");
            return;
        }
        self.proven.clear();
    }

    /// How long the kernel may go on bringing streams to this relay, though nobody renews that.
    pub fn left(&self) -> Duration {
        let last = self.proven.values().max();
        last.map(|at| LIFETIME.saturating_sub(at.elapsed())).unwrap_or_default()
    }

    /// Brings nothing more to the relay; whatever else the rules say stays.
    async fn forget(&self) -> Result<(), Failure> {
        let [ip, ip6] = Family::ALL;
        // Where only one of them has rules of ours, the other's complaint says nothing.
        let (first, second) =
            (self.nft.run(&rules::forget(ip)).await, self.nft.run(&rules::forget(ip6)).await);
        first.or(second).map_err(|error| failure(error.reason(), &error))
    }
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

fn ending() -> Failure {
    let message =
        "the agent is about to end, and carries only the streams that are open".to_owned();
    Failure { reason: state::ENDING, message }
}

fn relay_fails(error: &probe::Error) -> Failure {
    let message =
        format!("the runtime answers, and the relay does not carry a probe there: {error}");
    Failure { reason: "RelayFails", message }
}

fn cannot_listen(server: SocketAddr) -> Failure {
    let message = format!("the agent cannot listen for streams to {server}: see its log");
    Failure { reason: "RelayBind", message }
}
