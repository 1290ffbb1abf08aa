//! The test cluster from Rust: its commands, kubectl of two ages, and waiting with a deadline.
//!
//! Nothing here returns an error: a bed that does not work fails the test with the command and what it printed.
#![allow(dead_code, reason = "a bed offers more than each scenario needs")]

use std::env;
use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::api;
use crate::process::run;
pub use crate::process::{Output, Session};

/// For one kubectl or helm command; nothing a test asks of a healthy bed takes longer.
const COMMAND: Duration = Duration::from_secs(120);
/// For one helm command. It waits for what it has installed, with deadlines of its own that have to come first: a helm that
/// is killed leaves a release in which every later one finds another operation in progress.
const HELM: Duration = Duration::from_secs(330);
/// For one change of the bed itself. The first `up` on a machine compiles Kubernetes.
const CHANGE: Duration = Duration::from_secs(30 * 60);
/// A pod's start. After an apiserver's replacement a kubelet's watches back off, for up to a minute.
const POD: Duration = Duration::from_secs(120);
/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(200);

/// Which kubectl to use: they differ in how they ask for a stream (SPDY, or WebSockets first).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// 1.20
    Old,
    /// 1.35, or 1.37 on a cluster of that.
    Current,
}

impl Client {
    pub const BOTH: [Self; 2] = [Self::Old, Self::Current];

    fn subcommand(self) -> &'static str {
        match self {
            Self::Old => "kubectl-old",
            Self::Current => "kubectl",
        }
    }
}

/// One cluster of this machine.
pub struct Bed {
    script: PathBuf,
    /// The cluster's name.
    name: String,
    /// Where its shape is declared, if not in `tests/cluster/nodes`.
    nodes: Option<String>,
    cache: PathBuf,
    /// Held while this process uses the bed, since tests of two processes would change the cluster under each other.
    _alone: File,
}

static BED: LazyLock<Mutex<Bed>> = LazyLock::new(|| Mutex::new(Bed::start()));

/// The bed in the hands of one test.
pub struct Held(MutexGuard<'static, Bed>);

impl Deref for Held {
    type Target = Bed;

    fn deref(&self) -> &Bed {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.keep_logs();
        }
    }
}

impl Bed {
    /// The bed in its declared shape and without a policy, for the caller alone until dropped.
    pub fn shared() -> Held {
        // A test that failed with the bed in its hands leaves a cluster that is put right here.
        let held = Held(BED.lock().unwrap_or_else(PoisonError::into_inner));
        held.reset();
        held
    }

    fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/cluster");
        let bin = run(Command::new(&script).arg("bin"), None, COMMAND).succeeded();
        let cache =
            Path::new(bin.text()).parent().expect("bin is a folder of the cache").to_owned();
        // nextest runs each test in a process of its own, and gives the number of the place that it takes among those
        // that run at the same time: no two of these share a cluster.
        let kind = env::var("SLUICE_CLUSTERS").unwrap_or_else(|_| "e2e".to_owned());
        let name = match (env::var("NEXTEST_TEST_GLOBAL_SLOT"), env::var("SLUICE_CLUSTER")) {
            (Ok(slot), _) => format!("{kind}{slot}"),
            (_, Ok(name)) => name,
            _ => "default".to_owned(),
        };
        let clusters = cache.join("clusters");
        std::fs::create_dir_all(&clusters).expect("create the cache folder");
        let lock = File::create(clusters.join(format!("{name}.test.lock"))).expect("create a lock");
        lock.lock().expect("lock the bed");
        eprintln!("on the cluster {name}");
        Self { script, name, nodes: env::var("SLUICE_NODES").ok(), cache, _alone: lock }
    }

    /// Nodes, apiservers and kubeadm-config as declared in `tests/cluster/nodes`, whatever a test has left; quick when
    /// nothing has changed.
    #[track_caller]
    fn reset(&self) {
        let began = Instant::now();
        // There may be no cluster, no such kind, or no apiserver that answers.
        let asked = self.no_policy().success();
        self.up();
        // What a policy wants that is found only now has perhaps been done again to what was just put back.
        if !asked && self.had_policy() {
            self.up();
        }
        eprintln!("the bed is ready after {:.1} s", began.elapsed().as_secs_f64());
    }

    #[track_caller]
    fn up(&self) {
        let up = match &self.nodes {
            Some(file) => self.change(&["up", "-f", file]),
            None => self.change(&["up"]),
        };
        eprint!("{}", up.stderr);
    }

    /// Deletes all policies of a cluster that stands, and tells whether there was one.
    #[track_caller]
    fn had_policy(&self) -> bool {
        self.wait_for("an answer about policies", COMMAND, || {
            let deleted = self.no_policy();
            // In the words of a kubectl that knows of no such kind, and of one that remembers it from an earlier cluster.
            let unknown = ["doesn't have a resource type", "could not find the requested resource"];
            let no_such_kind = unknown.iter().any(|words| deleted.stderr.contains(words));
            (deleted.success() || no_such_kind).then(|| deleted.stdout.contains("deleted"))
        })
    }

    /// Deletes all policies: what one still wants would be done again to whatever is put back.
    #[track_caller]
    pub fn no_policy(&self) -> Output {
        self.kubectl(&["delete", "streamingpolicies", "--all", "--request-timeout=30s"])
    }

    /// Keeps what the cluster has to tell of a test that has failed, before the next test changes it.
    fn keep_logs(&self) {
        let test = env::var("NEXTEST_TEST_NAME").ok();
        let test = test.or_else(|| thread::current().name().map(str::to_owned));
        let test = test.unwrap_or_else(|| "unnamed".to_owned()).replace("::", ".");
        let folder = self.cache.join("failed").join(&test);
        let _ = std::fs::remove_dir_all(&folder);
        let kept = self.command("logs").arg(&folder).output();
        let kept = kept.is_ok_and(|output| output.status.success());
        let logs = if kept { "its logs" } else { "such of its logs as could be read" };
        eprintln!("{test} failed on the cluster {}; {logs}: {}", self.name, folder.display());
    }

    /// Runs the current kubectl.
    #[track_caller]
    pub fn kubectl(&self, args: &[&str]) -> Output {
        self.kubectl_of(Client::Current, args)
    }

    /// Runs kubectl 1.20.
    #[track_caller]
    pub fn kubectl_old(&self, args: &[&str]) -> Output {
        self.kubectl_of(Client::Old, args)
    }

    #[track_caller]
    pub fn kubectl_of(&self, client: Client, args: &[&str]) -> Output {
        run(self.command(client.subcommand()).args(args), None, COMMAND)
    }

    /// Runs kubectl with something on its standard input.
    #[track_caller]
    pub fn kubectl_fed(&self, client: Client, args: &[&str], input: Option<&str>) -> Output {
        run(self.command(client.subcommand()).args(args), input, COMMAND)
    }

    /// Runs a kubectl that may take longer than others.
    #[track_caller]
    pub fn kubectl_within(&self, client: Client, args: &[&str], deadline: Duration) -> Output {
        run(self.command(client.subcommand()).args(args), None, deadline)
    }

    /// The beginning of a shell's command line for this kubectl.
    pub fn kubectl_line(&self, client: Client) -> String {
        format!("{} --name {} {}", self.script.display(), self.name, client.subcommand())
    }

    /// Starts a kubectl that goes on until it is dropped, such as a port-forward.
    pub fn kubectl_session(&self, client: Client, args: &[&str]) -> Session {
        Session::start(self.command(client.subcommand()).args(args))
    }

    /// What the API has at a path, or nothing if there is no such object.
    #[track_caller]
    pub fn get(&self, path: &str) -> Option<Value> {
        api::get(&self.state().join("admin.conf"), path)
    }

    /// Whether an apiserver behind the load balancer says that it is ready.
    pub fn ready(&self) -> bool {
        api::ready(&self.state().join("admin.conf"))
    }

    /// Whether that node's own apiserver does.
    pub fn ready_on(&self, node: &str) -> bool {
        api::ready(&self.state().join("nodes").join(node).join("admin.conf"))
    }

    /// Where the cluster script keeps what it knows of the cluster.
    fn state(&self) -> PathBuf {
        self.cache.join("clusters").join(&self.name)
    }

    #[track_caller]
    pub fn apply(&self, yaml: &str) {
        self.try_apply(yaml).succeeded();
    }

    /// `kubectl apply` of what may be refused.
    #[track_caller]
    pub fn try_apply(&self, yaml: &str) -> Output {
        run(self.command("kubectl").args(["apply", "-f", "-"]), Some(yaml), COMMAND)
    }

    /// A namespace in which pods can start at once. They wait for a service account otherwise, which the controller manager
    /// makes half a minute later when an apiserver has just been replaced: its watches back off while it still leads.
    #[track_caller]
    pub fn namespace(&self, name: &str) {
        let yaml = format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}\n---\n\
             {{apiVersion: v1, kind: ServiceAccount, metadata: {{name: default, namespace: {name}}}, \
             automountServiceAccountToken: false}}\n"
        );
        // On the server, where it does not matter if the controller manager has made one in between.
        let args = ["apply", "--server-side", "-f", "-"];
        self.kubectl_fed(Client::Current, &args, Some(&yaml)).succeeded();
    }

    /// Waits until the pod's containers are ready; returns the first of them.
    #[track_caller]
    pub fn pod_ready(&self, namespace: &str, pod: &str) -> Value {
        self.pod_ready_after(namespace, pod, &Value::Null)
    }

    /// Waits until the pod's containers are ready, and the first of them is another than this: what is said of a pod stands
    /// until its kubelet says something else. Returns the container.
    #[track_caller]
    pub fn pod_ready_after(&self, namespace: &str, pod: &str, before: &Value) -> Value {
        self.wait_for(&format!("pod {namespace}/{pod} to be ready"), POD, || {
            let pod = self.get(&format!("/api/v1/namespaces/{namespace}/pods/{pod}"))?;
            let container = &pod["status"]["containerStatuses"][0]["containerID"];
            (api::is_ready(&pod) && container != before).then(|| container.clone())
        })
    }

    /// Looks again and again until there is something to return; the failure says what never came.
    #[track_caller]
    pub fn wait_for<T>(
        &self,
        what: &str,
        deadline: Duration,
        mut look: impl FnMut() -> Option<T>,
    ) -> T {
        let end = Instant::now() + deadline;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < end, "waited {deadline:?} in vain for {what}");
            thread::sleep(PAUSE);
        }
    }

    /// Throws the node's host away and joins a new one: `replace("old1", &["kubelet=1.20.15", "redirect=false"])`.
    #[track_caller]
    pub fn replace(&self, node: &str, declaration: &[&str]) {
        self.change(&[&["replace", node], declaration].concat());
    }

    /// Ends everything on the node's host, as a power failure does, and starts it again.
    #[track_caller]
    pub fn reboot(&self, node: &str) {
        self.change(&["reboot", node]);
    }

    /// The same where the node cannot become ready, since no apiserver runs.
    #[track_caller]
    pub fn reboot_alone(&self, node: &str) {
        self.change(&["reboot", node, "--no-wait"]);
    }

    #[track_caller]
    pub fn add(&self, node: &str, declaration: &[&str]) {
        self.change(&[&["add", node], declaration].concat());
    }

    #[track_caller]
    pub fn remove(&self, node: &str) {
        self.change(&["remove", node]);
    }

    /// Every control plane runs that apiserver with these extra flags; nothing happens if it does already.
    #[track_caller]
    pub fn apiserver(&self, version: &str, flags: &[&str]) {
        self.change(&[&["apiserver", version], flags].concat());
    }

    /// One control plane runs that apiserver with these extra flags.
    #[track_caller]
    pub fn apiserver_on(&self, node: &str, version: &str, flags: &[&str]) {
        self.change(&[&["apiserver", "--on", node, version], flags].concat());
    }

    /// The apiservers and kubeadm-config as kubeadm made them, whatever has changed them since.
    #[track_caller]
    pub fn default_apiserver(&self) {
        self.change(&["apiserver"]);
    }

    /// Puts another kubelet in the place of a node's, as an upgrade does; whether it comes up is the caller's question.
    #[track_caller]
    pub fn kubelet(&self, node: &str, version: &str) {
        self.change(&["kubelet", node, version]);
    }

    /// The binaries of Kubernetes that are built on this machine: version, component, file.
    #[track_caller]
    fn binaries(&self) -> Vec<[String; 3]> {
        let list = run(&mut self.command("binaries"), None, COMMAND).succeeded();
        let line = |line: &str| {
            let mut words = line.split_whitespace().map(str::to_owned);
            Some([words.next()?, words.next()?, words.next()?])
        };
        list.stdout.lines().filter_map(line).collect()
    }

    /// The versions of a component that are built on this machine.
    #[track_caller]
    pub fn versions_of(&self, component: &str) -> Vec<String> {
        let built = self.binaries().into_iter().filter(|[_, built, _]| built == component);
        built.map(|[version, ..]| version).collect()
    }

    /// The file of one, which a host sees as well.
    #[track_caller]
    pub fn binary(&self, version: &str, component: &str) -> PathBuf {
        let wanted = |[v, c, _]: &&[String; 3]| (v.as_str(), c.as_str()) == (version, component);
        let built = self.binaries();
        let found = built.iter().find(wanted);
        found.unwrap_or_else(|| panic!("no {component} {version} is built"))[2].clone().into()
    }

    /// Builds the operator's image, loads it into every host, and returns its name. `$SLUICE_OPERATOR` is a static binary
    /// to use, else one is compiled.
    #[track_caller]
    pub fn image(&self) -> String {
        let binary = env::var("SLUICE_OPERATOR").ok();
        let args: Vec<&str> = ["image"].into_iter().chain(binary.as_deref()).collect();
        self.change(&args).text().to_owned()
    }

    /// Runs a command inside a node's host, as root.
    #[track_caller]
    pub fn host_exec(&self, node: &str, command: &[&str]) -> Output {
        run(self.command("exec").arg(node).args(command), None, COMMAND)
    }

    #[track_caller]
    pub fn helm(&self, args: &[&str]) -> Output {
        run(self.command("helm").args(args), None, HELM)
    }

    /// An administrator's kubeconfig that works in this machine's own network namespace, through the load balancer.
    #[track_caller]
    pub fn kubeconfig(&self) -> PathBuf {
        run(&mut self.command("kubeconfig"), None, COMMAND).succeeded().text().into()
    }

    /// Runs this checkout's program as an administrator does.
    #[track_caller]
    pub fn sluice(&self, args: &[&str]) -> Output {
        self.sluice_within(args, COMMAND)
    }

    /// The same where it may take longer.
    #[track_caller]
    pub fn sluice_within(&self, args: &[&str], deadline: Duration) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        run(command.args(args).env("KUBECONFIG", self.kubeconfig()), None, deadline)
    }

    /// The program that [`Self::helm`] runs.
    pub fn helm_program(&self) -> PathBuf {
        self.cache.join("bin/helm")
    }

    /// What makes commands of the bed, for what runs beside a test.
    pub fn commands(&self) -> impl Fn(&str) -> Command + Send + use<> {
        let (script, name) = (self.script.clone(), self.name.clone());
        move |subcommand| command(&script, &name, subcommand)
    }

    /// The same for the apiserver of one control plane only.
    #[track_caller]
    pub fn kubeconfig_of(&self, node: &str) -> PathBuf {
        run(self.command("kubeconfig").arg(node), None, COMMAND).succeeded().text().into()
    }

    fn command(&self, subcommand: &str) -> Command {
        command(&self.script, &self.name, subcommand)
    }

    #[track_caller]
    fn change(&self, args: &[&str]) -> Output {
        run(self.command(args[0]).args(&args[1..]), None, CHANGE).succeeded()
    }
}

fn command(script: &Path, cluster: &str, subcommand: &str) -> Command {
    let mut command = Command::new(script);
    command.args(["--name", cluster, subcommand]);
    command
}
