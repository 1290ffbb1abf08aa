//! The requests of one candidate: at most a read and a write per attempt.

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use super::candidate::{self, Candidate, Step};
use super::{Error, LeaseSettings, now};

/// How an attempt ended that met no error.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// We hold the Lease.
    Held {
        /// Until when, unless it is renewed.
        until: Instant,
    },
    /// Somebody else does, as far as can be told.
    Waiting,
    /// Somebody else wrote the Lease between our read and our write.
    Beaten,
}

/// One candidate's claim to the Lease.
pub(super) struct Claim {
    api: Api<Lease>,
    settings: LeaseSettings,
    candidate: Candidate,
    /// The object as our last write left it, to renew without reading first.
    /// None after anything went wrong.
    written: Option<Lease>,
}

impl Claim {
    pub(super) fn new(client: Client, settings: LeaseSettings) -> Self {
        Self {
            api: Api::namespaced(client, &settings.namespace),
            candidate: Candidate::new(settings.identity.clone(), settings.timing),
            settings,
            written: None,
        }
    }

    /// A claim to the same Lease that knows nothing of it.
    pub(super) fn anew(&self) -> Self {
        Self {
            api: self.api.clone(),
            candidate: Candidate::new(self.settings.identity.clone(), self.settings.timing),
            settings: self.settings.clone(),
            written: None,
        }
    }

    pub(super) fn settings(&self) -> &LeaseSettings {
        &self.settings
    }

    pub(super) fn seen_holder(&self) -> Option<String> {
        self.candidate.seen_holder().map(str::to_owned)
    }

    /// Acquires or renews the Lease if it is ours to take.
    ///
    /// May be dropped at any point: what a request did then is found out by the
    /// read that the next attempt starts with.
    pub(super) async fn attempt(&mut self) -> Result<Attempt, Error> {
        // client-go's fast path: while we hold the Lease, nobody else may have
        // written it, and if somebody did, the resourceVersion tells.
        if self.candidate.holds(now())
            && let Some(lease) = self.written.take()
        {
            match self.write(Some(lease)).await? {
                Attempt::Beaten => {}
                done => return Ok(done),
            }
        }
        self.written = None;
        let read = self.read().await?;
        let spec = read.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
        self.candidate.saw(spec, now());
        match self.candidate.step(now()) {
            Step::Wait { .. } => Ok(Attempt::Waiting),
            Step::Create | Step::Acquire | Step::Takeover | Step::Renew => self.write(read).await,
        }
    }

    /// Lets go of the Lease if it carries our name.
    pub(super) async fn release(&mut self) -> Result<(), Error> {
        // Twice: a renewal of ours may still have been on its way.
        for _ in 0..2 {
            let Some(mut lease) = self.read().await? else {
                return Ok(());
            };
            let spec = lease.spec.take().unwrap_or_default();
            if candidate::holder(&spec) != Some(&self.settings.identity) {
                return Ok(());
            }
            lease.spec = Some(candidate::released(&spec, Timestamp::now()));
            if self.send(&lease).await?.is_some() {
                return Ok(());
            }
        }
        // Written by others twice within moments: it is not ours any more, or
        // it expires by itself.
        Ok(())
    }

    async fn read(&self) -> Result<Option<Lease>, Error> {
        self.limited("get", self.api.get_opt(&self.settings.name)).await
    }

    /// Writes our claim into `lease`, or into a new one.
    async fn write(&mut self, lease: Option<Lease>) -> Result<Attempt, Error> {
        let spec = self.candidate.claim(Timestamp::now());
        let lease = Lease {
            metadata: match lease {
                Some(lease) => lease.metadata,
                None => ObjectMeta {
                    namespace: Some(self.settings.namespace.clone()),
                    name: Some(self.settings.name.clone()),
                    ..ObjectMeta::default()
                },
            },
            spec: Some(spec),
        };
        let started = now();
        let Some(written) = self.send(&lease).await? else {
            return Ok(Attempt::Beaten);
        };
        // What counts is what the apiserver kept, should it differ.
        let spec: LeaseSpec = written.spec.clone().unwrap_or_default();
        let received = now();
        self.candidate.wrote(spec, started, received);
        self.written = Some(written);
        Ok(match self.candidate.held_until() {
            Some(until) if received < until => Attempt::Held { until },
            // This process stood still for so long that the time is up again.
            _ => Attempt::Waiting,
        })
    }

    /// Creates the Lease, or replaces the very version that `lease` names.
    /// None when that is not there (any more).
    async fn send(&self, lease: &Lease) -> Result<Option<Lease>, Error> {
        let parameters = PostParams::default();
        let (verb, result) = if lease.metadata.resource_version.is_none() {
            let request = self.api.create(&parameters, lease);
            ("create", self.limited("create", request).await)
        } else {
            let request = self.api.replace(&self.settings.name, &parameters, lease);
            ("replace", self.limited("replace", request).await)
        };
        match result {
            Ok(lease) => Ok(Some(lease)),
            Err(Error::Request { source, .. })
                if matches!(&*source, kube::Error::Api(status)
                    if status.code == 409 || (verb == "replace" && status.code == 404)) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn limited<T>(
        &self,
        verb: &'static str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Error> {
        let limit = self.settings.timing.request_timeout();
        match tokio::time::timeout(limit, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Error::Request { verb, source: Arc::new(error) }),
            Err(_) => Err(Error::Timeout { verb, limit }),
        }
    }
}
