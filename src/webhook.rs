//! Admission: an agent, or a remediator, may write only what is its own in its own node's
//! `StreamingNode`.
//!
//! [`rule`] says who may what, [`policy`] what is said to a `StreamingPolicy`, [`review`] answers
//! the apiserver's questions with them, `server` carries those over TLS, and [`certificate`] keeps
//! the certificate for that. Every replica serves, leading or not, so the controller's own writes, which
//! come by here as well, depend on no single one of them. What is not known of a write to a node's
//! object is refused: the node goes on without a report, and no report opens no gate.

pub mod certificate;
pub mod policy;
pub mod review;
pub mod rule;
mod server;

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use kube::Client;
use tokio::task::JoinHandle;

use crate::{
    controller::metrics::Metrics,
    process::{health::Health, shutdown::Shutdown},
};
pub use certificate::keeper::Maker;
use certificate::{
    keeper::{self, Keeper},
    serving::Serving,
};
use review::Reviewer;
use rule::Accounts;

/// How the webhook is served.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Whose writes it judges; its own objects are in the same namespace.
    pub accounts: Accounts,
    /// The Service by which apiservers reach it.
    pub service: String,
    /// Other names by which they reach it: DNS names or addresses.
    pub more_names: Vec<String>,
    /// The Secret of its certificate.
    pub secret: String,
    /// The ValidatingWebhookConfiguration.
    pub configuration: String,
    /// Who makes the certificate.
    pub maker: Maker,
}

impl WebhookSettings {
    /// Every name that the certificate is for.
    pub fn names(&self) -> BTreeSet<String> {
        let (service, namespace) = (&self.service, &self.accounts.namespace);
        let mut names = BTreeSet::from([
            service.clone(),
            format!("{service}.{namespace}"),
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
        ]);
        names.extend(self.more_names.iter().cloned());
        names
    }
}

/// Why the webhook is not served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("the webhook cannot listen on {address}: {source}")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// TLS cannot be set up.
    #[error("the webhook cannot speak TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl Error {
    /// A short, stable name for logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Bind { .. } => "WebhookBind",
            Self::Tls(_) => "WebhookTls",
        }
    }
}

/// Serves the webhook until some time after `shutdown`. `client` must not retry by itself.
///
/// # Errors
/// Where it cannot listen.
pub async fn start(
    settings: WebhookSettings,
    client: &Client,
    metrics: &Metrics,
    health: &Health,
    shutdown: &Shutdown,
) -> Result<JoinHandle<()>, Error> {
    let address = settings.listen;
    let bind = server::bind(address).await;
    let listener = bind.map_err(|source| Error::Bind { address, source })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let serving = Serving::default();
    let tls = serving.tls(provider.clone())?;
    let keeper = keeper::KeeperSettings {
        maker: settings.maker,
        namespace: settings.accounts.namespace.clone(),
        secret: settings.secret.clone(),
        configuration: settings.configuration.clone(),
        names: settings.names(),
    };
    let certified = health.ready_with("the webhook has no certificate");
    let told = (metrics.clone(), certified);
    let keeper = Keeper::new(client, keeper, serving, provider, told);
    let router = review::router(Reviewer::new(settings.accounts, client.clone(), metrics.clone()));
    // The certificate is kept for as long as it is served.
    let (done, ended) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(keeper.run(async {
        let _ = ended.await;
    }));
    let shutdown = shutdown.requested();
    Ok(tokio::spawn(async move {
        server::serve(listener, tls, router, shutdown).await;
        drop(done);
    }))
}
