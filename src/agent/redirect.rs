//! Brings the node's streams to the relay, and lets them go where that does not work.
//!
//! The kernel brings connections to the runtime's streaming server to the relay for a few seconds at
//! a time (`rules`), and goes on only after a probe has just come through the same rules and the same
//! relay, and the runtime has answered it (`probe`). Past an agent that is dead streams go straight to
//! the runtime at once; past one that hangs, or cannot reach the runtime, when those seconds are over.
//!
//! An agent that is about to end offers the node to another one that waits (`super::claim`). That one's
//! rules take the place of its own in one transaction, and until then it takes what the kernel brings.

mod certificate;
mod keeper;
mod nft;
mod probe;
mod rules;
mod runtime;
mod state;
pub mod untouched;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    claim::{Claim, Role},
    cri::Runtime,
    kubelet::Kubelet,
};
use crate::{
    api::{ByteRate, FailurePolicy, Proxy},
    node::host::Host,
    process::shutdown::Trigger,
    relay::{Limits, Relay},
};
use keeper::Keeper;
pub use nft::Error as RulesError;
use nft::Nft;
use rules::Family;
pub use rules::RELAY_MARK;
pub use runtime::RuntimeSettings;
use runtime::{Asker, Told};
use state::Failure;
pub use state::{Standing, StreamsState, Want};

/// Between two probes.
const RENEW: Duration = Duration::from_secs(2);

/// An agent that ends because nobody wants it any more may learn the one before the other.
pub const DETACH_GRACE: Duration = Duration::from_secs(3);

/// Takes all rules of ours out of the kernel.
///
/// # Errors
/// Where they stay.
pub async fn remove_rules(nft: &Path) -> Result<(), RulesError> {
    remove(&Nft(nft.to_owned())).await
}

async fn remove(nft: &Nft) -> Result<(), RulesError> {
    let [ip, ip6] = Family::ALL;
    // A kernel without IPv6 refuses the second, and has no rules of it.
    let _ = nft.run(&rules::remove(ip6)).await;
    nft.run(&rules::remove(ip)).await
}

/// A shell script in the place of nft, and the folder that it lies in.
#[cfg(test)]
pub fn script_of_nft(text: &str) -> (tempfile::TempDir, PathBuf) {
    let (folder, Nft(path)) = nft::tests::script(text);
    (folder, path)
}

/// What is known of the runtime and of the streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The runtime; `None` while it does not tell.
    pub runtime: Option<Runtime>,
    /// Where its streaming server answers from this node; `None` where it does not.
    pub answers: Option<SocketAddr>,
    /// Whether a kubelet trusts what the streaming server shows, where it speaks TLS and lets that
    /// be seen.
    pub trusted: Option<bool>,
    /// What becomes of streams.
    pub outcome: StreamsState,
}

/// How streams are brought to the relay.
#[derive(Clone, Debug)]
pub struct RedirectSettings {
    /// Where the relay takes them, one address of each family that it has.
    pub listeners: Vec<SocketAddr>,
    /// The nft program.
    pub nft: PathBuf,
    /// Which runtime is asked.
    pub runtime: RuntimeSettings,
}

/// What [`run`] hears and whom it tells.
pub struct Channels {
    /// What is wanted of the node's streams.
    pub wishes: watch::Receiver<Option<Proxy>>,
    /// The kubelet.
    pub kubelet: watch::Receiver<Kubelet>,
    /// What is known of the runtime and of the streams.
    pub attached: watch::Sender<Option<Attached>>,
    /// How it stands, for those who look at the clock themselves.
    pub standing: watch::Sender<Standing>,
    /// Once the kernel brings nothing more to the relay, after it was told to stop.
    pub unattached: Trigger,
    /// Once another agent acts.
    pub role: watch::Sender<Role>,
}

/// How far the loop has come, for those who tell of it.
#[derive(Clone, Debug)]
struct Progress {
    told: Told,
    answers: Option<SocketAddr>,
    standing: Standing,
}

/// Does as is wished until `stop` resolves, and then for as long as the relay carries streams or
/// until another agent takes over.
pub async fn run(
    settings: RedirectSettings,
    relay: Relay,
    host: Host,
    channels: Channels,
    claim: Claim,
    turned: impl Fn(),
    stop: impl Future<Output = ()>,
) {
    let Channels { mut wishes, kubelet, attached, standing, unattached, role } = channels;
    let mut keeper = Keeper::new(settings.listeners, Nft(settings.nft), relay.clone());
    let (telling, mut told) = watch::channel(Told::default());
    let asking = Asker::new(settings.runtime, host).run(kubelet, Arc::clone(&keeper.lost), telling);
    let want = Want::of(wishes.borrow().as_ref());
    let start = Progress { told: Told::default(), answers: None, standing: Standing::new(want) };
    let (progress, progressed) = watch::channel(start);
    let keeping = async {
        let mut stop = std::pin::pin!(stop);
        let mut complaint = None;
        let mut stopped: Option<Instant> = None;
        loop {
            if stopped.is_some() && claim.offer().await {
                role.send_replace(Role::Succeeded);
                tracing::info!("another agent has taken over");
                tokio::time::sleep(keeper.left()).await;
                return;
            }
            let want = Want::of(wishes.borrow_and_update().as_ref());
            let now = told.borrow_and_update().clone();
            // Before its own probes are among what is carried.
            let idle = relay.is_idle();
            let turn = match stopped {
                None => keeper.turn(want, &now).await,
                Some(_) => keeper.leave(want, &now).await,
            };
            turned();
            if idle && stopped.is_some_and(|at| ends(want, at.elapsed())) {
                if keeper.refusing {
                    keeper.refuse().await;
                }
                tokio::time::sleep(keeper.left()).await;
                return;
            }
            if stopped.is_some() && !keeper.refusing && keeper.left().is_zero() {
                unattached.request();
            }
            let (proven, failure) = match turn {
                Ok(found) => (found.proven, None),
                Err(failure) => (None, Some(failure)),
            };
            tell(&mut complaint, failure.as_ref());
            let standing = Standing { want, proven, refusing: keeper.refusing, failure };
            progress.send_replace(Progress { told: now, answers: keeper.answers, standing });
            tokio::select! {
                biased;
                () = &mut stop, if stopped.is_none() => stopped = Some(Instant::now()),
                Ok(()) = wishes.changed() => {}
                Ok(()) = told.changed() => {}
                () = relay.drained(), if stopped.is_some() && !idle => {}
                () = tokio::time::sleep(RENEW) => {}
            }
        }
    };
    // Neither keeps the other waiting.
    let beside = async {
        tokio::join!(asking, publish(progressed, attached, standing));
        std::future::pending().await
    };
    tokio::select! {
        () = keeping => {}
        () = beside => {}
    }
    unattached.request();
}

/// Whether an agent that has been told to stop so long ago, and carries nothing, has nothing left to do.
/// Where its end means that streams are refused, it may learn yet that nobody wants that any more.
fn ends(want: Want, stopped: Duration) -> bool {
    want != Want::Relay(FailurePolicy::Closed) || stopped >= DETACH_GRACE
}

/// Tells how it stands, each time that it changes, and when the kernel's rules have expired.
async fn publish(
    mut progress: watch::Receiver<Progress>,
    attached: watch::Sender<Option<Attached>>,
    standing: watch::Sender<Standing>,
) {
    loop {
        let Progress { told, answers, standing: now } = progress.borrow_and_update().clone();
        let at = Instant::now();
        let expires = now.expires(at);
        let found = Attached {
            runtime: told.runtime,
            answers,
            trusted: told.trusted,
            outcome: now.judge(at),
        };
        standing.send_replace(now);
        attached.send_if_modified(|before| {
            let changed = before.as_ref() != Some(&found);
            *before = Some(found);
            changed
        });
        let expired = async {
            match expires {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = progress.changed() => if changed.is_err() { return },
            () = expired => {}
        }
    }
}

/// Says what fails once, and once when it works again.
fn tell(complaint: &mut Option<&'static str>, failure: Option<&Failure>) {
    let reason = failure.map(|failure| failure.reason);
    if *complaint == reason {
        return;
    }
    match failure {
        Some(failure) if failure.reason == state::ENDING => tracing::info!("{}", failure.message),
        Some(failure) => tracing::warn!(reason = failure.reason, "{}", failure.message),
        None => tracing::info!("streams are as they are wanted"),
    }
    *complaint = reason;
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
