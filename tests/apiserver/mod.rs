//! A real apiserver with its etcd, for what a scripted one cannot show.
//!
//! Nothing else runs: no kubelet, no controller manager, no scheduler. Nodes and mirror pods are
//! objects that a test creates, and stay as they were put.

// Each test target uses its part.
#![allow(dead_code, unused_imports)]

pub mod chart;
pub mod definitions;
pub mod nodes;
mod process;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use tempfile::TempDir;

pub use process::{Process, Running, free_port, signal};

/// The version that is run, unless a test asks for another one.
pub const VERSION: &str = "1.20.15";

/// What the apiserver tells others to be reached at. It refuses to publish a loopback address; this
/// one is reserved for documentation and nobody asks it anything.
pub const ADVERTISED: &str = "192.0.2.10";

/// How long anything may take before a test gives up: long, because machines are slow.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// May do everything.
    Admin,
    /// The chart's ServiceAccount: may do what the chart's roles say.
    Controller,
}

impl User {
    const ALL: [Self; 2] = [Self::Admin, Self::Controller];

    fn token(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Controller => "controller",
        }
    }

    /// A line of the token file: token, name, uid, groups.
    fn line(self) -> &'static str {
        match self {
            Self::Admin => "admin,admin,1,system:masters\n",
            Self::Controller => concat!(
                "controller,system:serviceaccount:sluice-system:sluice-controller,2,",
                "\"system:serviceaccounts,system:serviceaccounts:sluice-system\"\n"
            ),
        }
    }
}

/// An apiserver and its etcd, with a folder of their own, until it is dropped.
pub struct Apiserver {
    // In the order in which they have to go.
    server: Option<Process>,
    etcd: Process,
    version: String,
    port: u16,
    etcd_port: u16,
    flags: Vec<String>,
    folder: TempDir,
}

impl Apiserver {
    /// Starts both and waits until the apiserver is ready.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts both, the apiserver with more flags.
    pub async fn start_with(flags: &[&str]) -> Self {
        Self::start_of(VERSION, flags).await
    }

    /// Starts an etcd and an apiserver of that version, with more flags.
    pub async fn start_of(version: &str, flags: &[&str]) -> Self {
        let folder = folder();
        let etcd_port = free_port();
        let etcd = etcd(folder.path(), etcd_port);
        let tokens: String = User::ALL.map(User::line).concat();
        fs::write(folder.path().join("tokens.csv"), tokens).unwrap();
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        let port = free_port();
        let mut this = Self {
            server: None,
            etcd,
            version: version.to_owned(),
            port,
            etcd_port,
            flags,
            folder,
        };
        for user in User::ALL {
            this.write_kubeconfig(user);
        }
        this.resume().await;
        this
    }

    /// Ends the apiserver as a crash does. Its data stays with etcd.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Starts the apiserver again at the same address, and waits until it is ready.
    pub async fn resume(&mut self) {
        self.server = Some(self.spawn());
        let started = std::time::Instant::now();
        loop {
            if self.ready().await {
                return;
            }
            let server = self.server.as_mut().unwrap();
            assert!(server.is_running(), "the apiserver has ended:\n{}", server.log());
            assert!(started.elapsed() < PATIENCE, "not ready:\n{}", server.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills it and starts it again.
    pub async fn restart(&mut self) {
        self.kill();
        self.resume().await;
    }

    /// The configuration with which `user` asks.
    pub async fn config(&self, user: User) -> Config {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig(user)).unwrap();
        let options = KubeConfigOptions::default();
        Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap()
    }

    /// The administrator's client.
    pub async fn client(&self) -> Client {
        Client::try_from(self.config(User::Admin).await).unwrap()
    }

    /// The file with which `user` asks.
    pub fn kubeconfig(&self, user: User) -> PathBuf {
        self.folder.path().join(user.token()).with_extension("kubeconfig")
    }

    /// A folder for files of the test's own, gone with the apiserver.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn certificates(&self) -> PathBuf {
        self.folder.path().join("certificates")
    }

    fn write_kubeconfig(&self, user: User) {
        // The apiserver makes its certificate at its first start and signs it itself.
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port),
                "certificate-authority": self.certificates().join("apiserver.crt"),
            }}],
            "users": [{"name": "test", "user": {"token": user.token()}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        });
        fs::write(self.kubeconfig(user), kubeconfig.to_string()).unwrap();
    }

    fn spawn(&self) -> Process {
        let binary = binaries().join(format!("kube-apiserver-{}", self.version));
        assert!(binary.exists(), "{} is missing: tests/cluster builds it", binary.display());
        let certificates = self.certificates();
        let key = certificates.join("apiserver.key");
        let mut flags = vec![
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", self.port),
            format!("--advertise-address={ADVERTISED}"),
            "--service-cluster-ip-range=10.96.0.0/24".to_owned(),
            format!("--cert-dir={}", certificates.display()),
            format!("--token-auth-file={}", self.folder.path().join("tokens.csv").display()),
            "--authorization-mode=RBAC".to_owned(),
            // Nobody makes ServiceAccounts here, and pods are only looked at.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-signing-key-file={}", key.display()),
            format!("--service-account-key-file={}", key.display()),
        ];
        if self.version.starts_with("1.18.") || self.version.starts_with("1.19.") {
            // They would serve plain http at 8080, too.
            flags.push("--insecure-port=0".to_owned());
        }
        flags.extend_from_slice(&self.flags);
        Process::start(&binary, &flags, &self.folder.path().join("apiserver.log"))
    }

    /// Whether it is ready and has made the namespaces that every cluster has.
    async fn ready(&self) -> bool {
        if !self.certificates().join("apiserver.crt").exists() {
            return false;
        }
        let mut config = self.config(User::Admin).await;
        config.default_retry = false;
        let Ok(client) = Client::try_from(config) else { return false };
        let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
        if client.request_text(request).await.is_err() {
            return false;
        }
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client);
        namespaces.get("kube-system").await.is_ok() && namespaces.get("default").await.is_ok()
    }
}

/// Where tests/cluster puts the binaries that it builds.
pub fn binaries() -> PathBuf {
    let cache = std::env::var_os("SLUICE_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        let home = std::env::var_os("HOME").expect("neither SLUICE_CACHE nor HOME is set");
        PathBuf::from(home).join(".cache/sluice")
    });
    cache.join("bin")
}

/// Waits until `look` sees what it looks for.
///
/// # Panics
/// With `what` after [`PATIENCE`].
pub async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    within(PATIENCE, what, look).await
}

/// Waits for as long as `limit` until `look` sees what it looks for.
///
/// # Panics
/// With `what` after `limit`.
pub async fn within<T>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = std::time::Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// In memory where there is such a file system: etcd waits for its disk at each write.
fn folder() -> TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("sluice-apiserver-");
    let memory = Path::new("/dev/shm");
    if memory.is_dir()
        && let Ok(folder) = builder.tempdir_in(memory)
    {
        return folder;
    }
    builder.tempdir().unwrap()
}

fn etcd(folder: &Path, port: u16) -> Process {
    let (client, peer) =
        (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", free_port()));
    let flags = [
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--quota-backend-bytes=8589934592".to_owned(),
        "--logger=zap".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    Process::start(Path::new("etcd"), &flags, &folder.join("etcd.log"))
}
