//! Watches the Secret and the configuration, and keeps both as they have to be.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::ValidatingWebhookConfiguration, core::v1::Secret},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    core::ObjectMeta,
    runtime::{
        WatchStreamExt,
        watcher::{self, watch_object},
    },
};
use rustls::crypto::CryptoProvider;
use serde_json::json;
use tokio::time::Instant;

use super::{
    request::{Error, REPLACE, within},
    rotation::{self, Step},
    serving::Serving,
    stored,
};
use crate::{
    controller::metrics::Metrics,
    kubernetes::{
        retry::Pauses,
        watch::{WatchBackoff, reason},
    },
    process::health::Need,
};

/// Who applies the bundle.
const MANAGER: &str = "sluice-webhook";

/// After a failure, doubling up to the second.
const RETRY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(32)];

/// Between two looks although nothing was to happen: clocks are set, machines sleep.
const LOOK: Duration = Duration::from_secs(3600);

/// More steps than ever follow each other at once.
const STEPS: usize = 5;

/// Who makes the certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Maker {
    /// The operator itself, which also keeps the bundle in the configuration.
    #[default]
    Managed,
    /// cert-manager or a person: the operator only serves what is in the Secret.
    External,
}

/// What is kept where.
#[derive(Clone, Debug)]
pub struct KeeperSettings {
    /// Who makes the certificate.
    pub maker: Maker,
    /// The Secret's namespace.
    pub namespace: String,
    /// The Secret's name.
    pub secret: String,
    /// The name of the ValidatingWebhookConfiguration.
    pub configuration: String,
    /// The names under which apiservers reach the webhook.
    pub names: BTreeSet<String>,
}

/// Keeps the certificate.
pub struct Keeper {
    secrets: Api<Secret>,
    configurations: Api<ValidatingWebhookConfiguration>,
    settings: KeeperSettings,
    serving: Serving,
    provider: Arc<CryptoProvider>,
    metrics: Metrics,
    /// Met once there is a certificate.
    certified: Need,
    known: Known,
}

/// What the apiserver has shown; none where it has not answered yet.
#[derive(Default)]
struct Known {
    secret: Option<Option<Secret>>,
    configuration: Option<Option<ValidatingWebhookConfiguration>>,
}

enum StoredPair {
    Secret(Box<Option<Secret>>),
    Configuration(Box<Option<ValidatingWebhookConfiguration>>),
    Failed(watcher::Error),
}

impl Keeper {
    /// A keeper that has not looked yet. Once there is a certificate, `serving` has it and `certified`
    /// is met.
    pub fn new(
        client: &Client,
        settings: KeeperSettings,
        serving: Serving,
        provider: Arc<CryptoProvider>,
        (metrics, certified): (Metrics, Need),
    ) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), &settings.namespace),
            configurations: Api::all(client.clone()),
            settings,
            serving,
            provider,
            metrics,
            certified,
            known: Known::default(),
        }
    }

    /// Keeps it until `shutdown` resolves.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut seen = pin!(self.watches());
        let mut shutdown = pin!(shutdown);
        let mut pauses = Pauses::new(RETRY[0], RETRY[1]);
        let mut wake = Instant::now() + LOOK;
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                Some(seen) = seen.next() => self.see(seen),
                () = tokio::time::sleep_until(wake) => {}
            }
            let wait = match self.turn().await {
                Ok(wait) => {
                    pauses.succeeded();
                    wait
                }
                Err(error) => {
                    if error.is_conflict() {
                        tracing::debug!("somebody else was faster: {error}");
                    } else {
                        self.metrics.error(error.reason());
                        let (reason, advice) = (error.reason(), error.advice());
                        tracing::warn!(reason, advice, "{error}");
                    }
                    pauses.failed()
                }
            };
            wake = Instant::now() + wait;
        }
    }

    fn watches(&self) -> impl Stream<Item = StoredPair> + use<> {
        let secrets = one(self.secrets.clone(), &self.settings.secret, |seen| {
            StoredPair::Secret(Box::new(seen))
        });
        let configurations =
            one(self.configurations.clone(), &self.settings.configuration, |seen| {
                StoredPair::Configuration(Box::new(seen))
            });
        // Who brings a certificate from elsewhere brings the bundle, too.
        let own = self.settings.maker == Maker::Managed;
        stream::select(secrets, stream::iter(own.then_some(configurations)).flatten())
    }

    fn see(&mut self, seen: StoredPair) {
        match seen {
            StoredPair::Secret(secret) => self.take(*secret),
            StoredPair::Configuration(configuration) => {
                if configuration.is_none() {
                    self.metrics.error("WebhookNotConfigured");
                    let name = &self.settings.configuration;
                    tracing::warn!(
                        name,
                        "there is no such ValidatingWebhookConfiguration: agents' writes are not \
                         checked"
                    );
                }
                self.known.configuration = Some(*configuration);
            }
            StoredPair::Failed(error) => {
                self.metrics.error(reason(&error));
                let advice = "the ServiceAccount has to be able to get, list and watch it";
                tracing::warn!(%error, advice, "the watch of the webhook's objects was interrupted");
            }
        }
    }

    /// Takes a state of the Secret, and serves what is in it.
    fn take(&mut self, secret: Option<Secret>) {
        match secret.as_ref().map(|secret| stored::pair(secret, &self.provider)) {
            Some(Ok(pair)) => {
                if self.serving.replace(pair.key) {
                    tracing::info!(until = %pair.until, "serving the webhook with a new certificate");
                }
                self.metrics.certificate_until(pair.until.as_second());
                self.certified.met(true);
            }
            Some(Err(error)) => {
                self.metrics.error(error.reason());
                let name = &self.settings.secret;
                tracing::warn!(name, reason = error.reason(), "the webhook's Secret: {error}");
            }
            None if self.settings.maker == Maker::External => {
                self.metrics.error("CertificateMissing");
                let name = &self.settings.secret;
                tracing::warn!(name, "there is no such Secret: the webhook has no certificate");
            }
            None => {}
        }
        self.known.secret = Some(secret);
    }

    /// Does what there is to do; tells how long nothing will be.
    async fn turn(&mut self) -> Result<Duration, Error> {
        // Before the first answer nothing is known to be missing.
        if self.settings.maker == Maker::External || self.known.secret.is_none() {
            return Ok(LOOK);
        }
        let mut wait = Duration::ZERO;
        for _ in 0..STEPS {
            let now = Timestamp::now();
            let before = self.known.secret.as_ref().and_then(Option::as_ref);
            let held = before.map(|secret| stored::held(secret, &self.provider));
            let held = held.unwrap_or_default();
            let step = rotation::next(&held, &self.settings.names, self.is_trusted(), now);
            if let Step::Keep(until) = step {
                let rest = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                wait = rest.clamp(Duration::from_secs(1), LOOK);
                break;
            }
            let Some(data) = stored::perform(step, before, &self.settings.names, now)? else {
                break;
            };
            tracing::info!(?step, "writing the webhook's Secret");
            let written = self.write(data).await;
            // Whoever was faster has decided the same.
            let secret = match written {
                Err(error) if error.is_conflict() => {
                    let read = self.secrets.get_opt(&self.settings.secret);
                    let secret = within("read the Secret", read).await?;
                    self.take(secret);
                    return Err(error);
                }
                written => written?,
            };
            self.take(Some(secret));
        }
        self.publish().await?;
        Ok(wait)
    }

    async fn write(&self, data: BTreeMap<String, ByteString>) -> Result<Secret, Error> {
        let params = PostParams::default();
        if let Some(Some(secret)) = &self.known.secret {
            let secret = Secret { data: Some(data), ..secret.clone() };
            let replace = self.secrets.replace(&self.settings.secret, &params, &secret);
            return within(REPLACE, replace).await;
        }
        let labels =
            [("app.kubernetes.io/managed-by", MANAGER), ("app.kubernetes.io/part-of", "sluice")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(self.settings.secret.clone()),
                labels: Some(labels.into()),
                ..ObjectMeta::default()
            },
            data: Some(data),
            type_: Some("kubernetes.io/tls".to_owned()),
            ..Secret::default()
        };
        within("create the Secret", self.secrets.create(&params, &secret)).await
    }

    /// Whether the configuration has the newest authority in every bundle.
    fn is_trusted(&self) -> bool {
        let Some(Some(secret)) = &self.known.secret else { return false };
        let Some(first) = stored::authorities(secret).into_iter().next() else { return false };
        let bundles = self.bundles();
        !bundles.is_empty()
            && bundles.into_iter().all(|(_, bundle)| {
                let bundle = bundle.and_then(|bundle| stored::parse_pem(&bundle.0));
                bundle.is_some_and(|bundle| bundle.contains(&first))
            })
    }

    /// The configuration's webhooks by name, each with its bundle.
    fn bundles(&self) -> Vec<(&str, Option<&ByteString>)> {
        let configuration = self.known.configuration.as_ref().and_then(Option::as_ref);
        let webhooks = configuration.and_then(|of| of.webhooks.as_ref()).into_iter().flatten();
        webhooks.map(|of| (of.name.as_str(), of.client_config.ca_bundle.as_ref())).collect()
    }

    /// Puts the bundle into the configuration where it is not there.
    async fn publish(&mut self) -> Result<(), Error> {
        let Some(Some(configuration)) = &self.known.configuration else { return Ok(()) };
        let Some(Some(secret)) = &self.known.secret else { return Ok(()) };
        let Some(bundle) = secret.data.as_ref().and_then(|data| data.get(stored::CA)) else {
            return Ok(());
        };
        let bundles = self.bundles();
        if bundles.iter().all(|(_, has)| *has == Some(bundle)) {
            return Ok(());
        }
        let webhooks: Vec<_> = bundles
            .iter()
            .map(|(name, _)| json!({"name": name, "clientConfig": {"caBundle": bundle}}))
            .collect();
        let patch = json!({
            "apiVersion": ValidatingWebhookConfiguration::api_version(&()),
            "kind": ValidatingWebhookConfiguration::kind(&()),
            "metadata": {
                "name": self.settings.configuration,
                // Whoever has seen less must not undo what another replica has written since.
                "resourceVersion": configuration.resource_version(),
            },
            "webhooks": webhooks,
        });
        let (params, patch) = (PatchParams::apply(MANAGER).force(), Patch::Apply(patch));
        let apply = self.configurations.patch(&self.settings.configuration, &params, &patch);
        let applied =
            within("apply the bundle to the ValidatingWebhookConfiguration", apply).await?;
        tracing::info!("the configuration has the webhook's authorities now");
        self.known.configuration = Some(Some(applied));
        Ok(())
    }
}

/// One object of this name, whenever it changes.
fn one<K>(
    api: Api<K>,
    name: &str,
    wrap: fn(Option<K>) -> StoredPair,
) -> BoxStream<'static, StoredPair>
where
    K: Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let stream = watch_object(api, name).backoff(WatchBackoff::default());
    stream.map(move |seen| seen.map_or_else(StoredPair::Failed, wrap)).boxed()
}
