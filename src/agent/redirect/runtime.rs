//! The runtime, asked again and again who it is and where it streams. It may take its time: nothing
//! else waits for it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::{Notify, watch};

use super::{
    certificate,
    state::{Failure, failure},
};
use crate::{
    agent::{
        cri::{self, Own, Runtime},
        kubelet::Kubelet,
    },
    node::host::Host,
};

/// How often a runtime that answers is asked again.
const AGAIN: Duration = Duration::from_secs(60);

/// How soon one that does not answer is.
const SOON: Duration = Duration::from_secs(2);

/// What is known of the runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The runtime; `None` while it does not tell.
    pub runtime: Option<Runtime>,
    /// Whether a kubelet trusts what its streaming server shows, where it speaks TLS and lets that
    /// be seen.
    pub trusted: Option<bool>,
    /// Why it does not tell.
    pub failure: Option<Failure>,
}

/// Which runtime is asked.
#[derive(Clone, Debug)]
pub struct RuntimeSettings {
    /// The runtime's socket on the node, where somebody says so.
    pub cri_socket: Option<String>,
    /// Our own container.
    pub own: Own,
}

/// Asks the runtime.
pub struct Asker {
    settings: RuntimeSettings,
    host: Host,
    told: Told,
    /// The socket at which the runtime answered last.
    socket: Option<PathBuf>,
}

impl Asker {
    /// One that has asked nothing yet.
    pub fn new(settings: RuntimeSettings, host: Host) -> Self {
        Self { settings, host, told: Told::default(), socket: None }
    }

    /// Asks until nobody listens any more: now and then, as soon as the kubelet is another one
    /// (dockershim is a part of it), and when the streaming server is `lost`.
    pub async fn run(
        mut self,
        mut kubelets: watch::Receiver<Kubelet>,
        lost: Arc<Notify>,
        sender: watch::Sender<Told>,
    ) {
        loop {
            let kubelet = kubelets.borrow_and_update().clone();
            let answered = self.ask(&kubelet).await;
            sender.send_if_modified(|before| {
                let changed = *before != self.told;
                before.clone_from(&self.told);
                changed
            });
            let again = tokio::time::sleep(if answered { AGAIN } else { SOON });
            let another = kubelets.wait_for(|now| has_another_runtime(&kubelet, now));
            tokio::select! {
                () = again => {}
                () = lost.notified() => {
                    // What it said last is not true any more.
                    self.told.runtime = None;
                }
                another = another => if another.is_err() { return },
                () = sender.closed() => return,
            }
        }
    }

    /// Asks once; tells whether there was an answer.
    async fn ask(&mut self, kubelet: &Kubelet) -> bool {
        let told = self.settings.cri_socket.as_deref().or(kubelet.endpoint.as_deref());
        let mut sockets = self.host.sockets(told, kubelet.remote);
        // One before it that hangs would be waited for each time.
        sockets.sort_by_key(|socket| Some(socket) != self.socket.as_ref());
        // A runtime that was found before the kubelet was seen may not be the kubelet's: containerd knows
        // our container, too, where cri-dockerd has it run. While the kubelet is stopped, the runtime stays.
        let is_known = told.is_some() || kubelet.process.is_some();
        if is_known && !self.socket.as_ref().is_some_and(|socket| sockets.contains(socket)) {
            self.told.runtime = None;
        }
        match cri::find(sockets, &self.settings.own).await {
            Ok((socket, runtime)) => {
                if self.told.runtime.as_ref() != Some(&runtime) {
                    tracing::info!(
                        runtime = runtime.name,
                        version = runtime.version,
                        server = ?runtime.server,
                        "the container runtime"
                    );
                }
                let trusted = self.trusts(&runtime).await;
                self.socket = Some(socket);
                self.told = Told { runtime: Some(runtime), trusted, failure: None };
                true
            }
            Err(error) => {
                // The streams of a runtime that only does not answer this are carried on.
                self.told.failure = Some(failure(error.reason(), &error));
                false
            }
        }
    }

    async fn trusts(&self, runtime: &Runtime) -> Option<bool> {
        let server = runtime.server.as_ref().filter(|server| server.tls)?;
        let authorities = self.host.authorities();
        for address in &server.addresses {
            let trusted = certificate::is_trusted(*address, &server.host, &authorities).await;
            if trusted.is_some() {
                return trusted;
            }
        }
        None
    }
}

/// Whether the runtime of this kubelet may be another one, or may stream from elsewhere.
fn has_another_runtime(before: &Kubelet, now: &Kubelet) -> bool {
    let (Kubelet { endpoint, remote, .. }, process) = (before, before.process);
    let restarted = now.process.is_some() && now.process != process;
    restarted || now.endpoint != *endpoint || now.remote != *remote
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::cri::Runtime;

    fn asker() -> Asker {
        let own = Own { pod_uid: String::new(), container: String::new() };
        Asker::new(RuntimeSettings { cri_socket: None, own }, Host::new("/nonexistent".into()))
    }

    fn containerd() -> Runtime {
        Runtime { name: "containerd".to_owned(), version: "1.6.20".to_owned(), server: None }
    }

    fn kubelet(pid: u32, endpoint: Option<&str>) -> Kubelet {
        let endpoint = endpoint.map(|endpoint| format!("unix://{endpoint}"));
        Kubelet { process: Some((pid, 2)), endpoint, ..Kubelet::default() }
    }

    /// containerd may know our container, too, where the kubelet uses something in front of it.
    #[tokio::test]
    async fn a_runtime_that_the_kubelet_does_not_use_is_not_kept() {
        for (kubelet, kept) in [
            (kubelet(2, Some("/run/odd.sock")), true),
            (kubelet(2, Some("/run/cri-dockerd.sock")), false),
            // It is stopped.
            (Kubelet::default(), true),
        ] {
            let mut asker = asker();
            asker.told.runtime = Some(containerd());
            asker.socket = Some("/nonexistent/run/odd.sock".into());
            // Nobody listens.
            assert!(!asker.ask(&kubelet).await);
            assert_eq!(asker.told.runtime.is_some(), kept, "{kubelet:?}");
            assert_eq!(asker.told.failure.unwrap().reason, "RuntimeUnreachable");
        }
    }

    #[test]
    fn another_kubelet_may_have_another_runtime() {
        let before = kubelet(2, Some("/run/a.sock"));
        for (now, another) in [
            (before.clone(), false),
            (kubelet(3, Some("/run/a.sock")), true),
            (kubelet(2, Some("/run/b.sock")), true),
            (Kubelet { remote: true, ..before.clone() }, true),
            // It is stopped: the runtime goes on.
            (Kubelet { process: None, ..before.clone() }, false),
            (
                Kubelet {
                    flag: Some(crate::kubernetes::arguments::kubelet::FlagValue::On),
                    ..before.clone()
                },
                false,
            ),
        ] {
            assert_eq!(has_another_runtime(&before, &now), another, "{now:?}");
        }
    }

    #[tokio::test]
    async fn a_lost_streaming_server_is_asked_for_at_once() {
        let mut asker = asker();
        asker.told.runtime = Some(containerd());
        let (_kubelets, kubelet) = watch::channel(Kubelet::default());
        let (sender, mut told) = watch::channel(Told::default());
        let lost = Arc::new(Notify::new());
        let asking = tokio::spawn(asker.run(kubelet, Arc::clone(&lost), sender));
        // Nobody listens, and what was known stays.
        let known = told.wait_for(|told| told.failure.is_some()).await.unwrap().clone();
        assert_eq!(known.runtime, Some(containerd()));
        lost.notify_one();
        assert_eq!(told.wait_for(|told| told.runtime.is_none()).await.unwrap().trusted, None);
        drop(told);
        asking.await.unwrap();
    }
}
