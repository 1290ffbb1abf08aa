//! The controller as a process, and what it says of itself.

// Each test target uses its part.
#![allow(dead_code)]

use std::{collections::BTreeMap, path::Path};

use kube::{Client, Config};

use crate::apiserver::{Apiserver, Process, Running, User, eventually, free_port};

/// One replica of the controller.
pub struct Replica {
    process: Process,
    page: Client,
    identity: String,
}

/// Which Lease a replica wants.
#[derive(Clone, Copy, Debug)]
pub struct Lease<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// A Lease for tests in which nothing depends on where it is.
pub const LEASE: Lease<'static> = Lease { namespace: "default", name: "sluice-controller" };

impl Replica {
    /// Starts a replica as the administrator and waits until it serves metrics.
    pub async fn start(server: &Apiserver, identity: &str) -> Self {
        Self::start_as(server, User::Admin, identity, LEASE).await
    }

    /// Starts a replica as `user` and waits until it serves metrics.
    pub async fn start_as(
        server: &Apiserver,
        user: User,
        identity: &str,
        lease: Lease<'_>,
    ) -> Self {
        Self::start_with(server, user, identity, lease, &[]).await
    }

    /// Starts a replica with more options.
    pub async fn start_with(
        server: &Apiserver,
        user: User,
        identity: &str,
        lease: Lease<'_>,
        options: &[&str],
    ) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let mut page = Config::new(format!("http://{address}").parse().unwrap());
        // A probe that fails is an answer.
        page.default_retry = false;
        let mut arguments = vec![
            "controller".to_owned(),
            format!("--kubeconfig={}", server.kubeconfig(user).display()),
            format!("--listen={address}"),
            format!("--lease-namespace={}", lease.namespace),
            format!("--lease-name={}", lease.name),
            format!("--identity={identity}"),
        ];
        arguments.extend(options.iter().map(|&option| option.to_owned()));
        let log = server.folder().join(format!("controller-{identity}.log"));
        let program = Path::new(env!("CARGO_BIN_EXE_sluice"));
        let mut this = Self {
            process: Process::start(program, &arguments, &log),
            page: Client::try_from(page).unwrap(),
            identity: identity.to_owned(),
        };
        let page = this.page.clone();
        eventually("the replica serves metrics", async || {
            assert!(this.process.is_running(), "it has ended:\n{}", this.process.log());
            get(&page, "/metrics").await
        })
        .await;
        this
    }

    /// The name in the Lease.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// What it tells Prometheus: a number for each series.
    pub async fn metrics(&self) -> BTreeMap<String, f64> {
        let text = get(&self.page, "/metrics").await.expect("the replica serves no metrics");
        let series = text.lines().filter(|line| !line.starts_with('#'));
        series
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
            .collect()
    }

    /// The sum of all series whose name begins so.
    pub async fn sum(&self, prefix: &str) -> f64 {
        let metrics = self.metrics().await;
        metrics.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, value)| value).sum()
    }

    /// Whether it leads.
    pub async fn leads(&self) -> bool {
        get(&self.page, "/metrics").await.is_some_and(|text| text.contains("sluice_leader 1\n"))
    }

    /// Whether a probe of the kubelet's succeeds.
    pub async fn probe(&self, path: &str) -> bool {
        get(&self.page, path).await.is_some()
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

impl Running for Replica {
    fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

async fn get(page: &Client, path: &str) -> Option<String> {
    page.request_text(http::Request::get(path).body(Vec::new()).unwrap()).await.ok()
}
