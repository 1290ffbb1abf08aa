//! Brings the node's streams to the relay, and lets them go where that does not work.
//!
//! The kernel brings connections to the runtime's streaming server to the relay for a few seconds at
//! a time (`rules`), and goes on only after a probe has just come through the same rules and the same
//! relay, and the runtime has answered it (`probe`). Past an agent that is dead streams go straight to
//! the runtime at once; past one that hangs, or cannot reach the runtime, when those seconds are over.

mod certificate;
mod keeper;
mod nft;
mod probe;
mod rules;
mod runtime;
mod state;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{cri::Runtime, kubelet::Kubelet};
use crate::{
    api::{ByteRate, Proxy},
    controller::shutdown::Trigger,
    node::host::Host,
    relay::{Limits, Relay},
};
use keeper::Keeper;
use nft::Nft;
pub use rules::RELAY_MARK;
pub use runtime::Settings as RuntimeSettings;
use runtime::{Asker, Told};
use state::Failure;
pub use state::{Outcome, Standing, Want};

/// Between two probes.
const RENEW: Duration = Duration::from_secs(2);

/// An agent that ends because nobody wants it any more may learn the one before the other.
pub const FAREWELL: Duration = Duration::from_secs(3);

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
    pub outcome: Outcome,
}

/// How streams are brought to the relay.
#[derive(Clone, Debug)]
pub struct Settings {
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
}

/// How far the loop has come, for those who tell of it.
#[derive(Clone, Debug)]
struct Progress {
    told: Told,
    answers: Option<SocketAddr>,
    standing: Standing,
}

/// Does as is wished until `stop` resolves, then lets streams go.
pub async fn run(
    settings: Settings,
    relay: Relay,
    host: Host,
    channels: Channels,
    turned: impl Fn(),
    stop: impl Future<Output = ()>,
) {
    let Channels { mut wishes, kubelet, attached, standing, unattached } = channels;
    let mut keeper = Keeper::new(settings.listeners, Nft(settings.nft), relay);
    let (telling, mut told) = watch::channel(Told::default());
    let asking = Asker::new(settings.runtime, host).run(kubelet, Arc::clone(&keeper.lost), telling);
    let want = Want::of(wishes.borrow().as_ref());
    let start = Progress { told: Told::default(), answers: None, standing: Standing::new(want) };
    let (progress, progressed) = watch::channel(start);
    let keeping = async {
        let mut stop = std::pin::pin!(stop);
        let mut complaint = None;
        loop {
            let want = Want::of(wishes.borrow_and_update().as_ref());
            let now = told.borrow_and_update().clone();
            let turn = keeper.turn(want, &now).await;
            turned();
            let (proven, failure) = match turn {
                Ok(found) => (found.proven, None),
                Err(failure) => (None, Some(failure)),
            };
            tell(&mut complaint, failure.as_ref());
            let standing = Standing { want, proven, refusing: keeper.refusing, failure };
            progress.send_replace(Progress { told: now, answers: keeper.answers, standing });
            tokio::select! {
                biased;
                () = &mut stop => break,
                Ok(()) = wishes.changed() => {}
                Ok(()) = told.changed() => {}
                () = tokio::time::sleep(RENEW) => {}
            }
        }
        keeper.let_go(&mut wishes, &unattached).await;
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
