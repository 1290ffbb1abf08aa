//! The test cluster from Rust: its commands, kubectl of two ages, and waiting with a deadline.
//!
//! Nothing here returns an error: a bed that does not work fails the test with the command and what it printed.
#![allow(dead_code, reason = "a bed offers more than each scenario needs")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// For one kubectl or helm command; nothing a test asks of a healthy bed takes longer.
const COMMAND: Duration = Duration::from_secs(120);
/// For one change of the bed itself. The first `up` on a machine compiles Kubernetes.
const CHANGE: Duration = Duration::from_secs(30 * 60);
/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(200);

/// Which kubectl to use: they differ in how they ask for a stream (SPDY, or WebSockets first).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// 1.20
    Old,
    /// 1.35
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

/// The one cluster of this machine.
pub struct Bed {
    script: PathBuf,
    /// Held while this process uses the bed, since tests of two processes would change the cluster under each other.
    _alone: File,
}

static BED: LazyLock<Mutex<Bed>> = LazyLock::new(|| Mutex::new(Bed::start()));

impl Bed {
    /// The bed, brought to its declared shape when this process first asks, and for the caller alone until dropped.
    pub fn shared() -> MutexGuard<'static, Self> {
        // A test that failed with the bed in its hands leaves a cluster that works.
        BED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/cluster");
        let bin = run(Command::new(&script).arg("bin"), None, COMMAND).succeeded();
        let cache = Path::new(bin.text()).parent().expect("bin is a folder of the cache");
        std::fs::create_dir_all(cache).expect("create the cache folder");
        let lock = File::create(cache.join("e2e.lock")).expect("create the bed's lock");
        lock.lock().expect("lock the bed");
        let bed = Self { script, _alone: lock };
        bed.default_shape();
        bed
    }

    /// Nodes, apiservers and kubeadm-config as declared in `tests/cluster/nodes`; quick when they are.
    #[track_caller]
    pub fn default_shape(&self) {
        self.change(&["up"]);
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
        format!("{} {}", self.script.display(), client.subcommand())
    }

    /// Starts a kubectl that goes on until it is dropped, such as a port-forward.
    pub fn kubectl_session(&self, client: Client, args: &[&str]) -> Session {
        Session::start(self.command(client.subcommand()).args(args))
    }

    /// `kubectl get … -o json`, or nothing if there is no such object.
    #[track_caller]
    pub fn get(&self, args: &[&str]) -> Option<serde_json::Value> {
        let args = [&["get", "-o", "json", "--ignore-not-found"], args].concat();
        let output = self.kubectl(&args).succeeded();
        (!output.text().is_empty()).then(|| output.json())
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

    /// Waits until the pod's containers are ready.
    #[track_caller]
    pub fn pod_ready(&self, namespace: &str, pod: &str) {
        self.wait_for(
            &format!("pod {namespace}/{pod} to be ready"),
            Duration::from_secs(90),
            || {
                let pod = self.get(&["pod", "-n", namespace, pod])?;
                let conditions = pod["status"]["conditions"].as_array()?;
                conditions
                    .iter()
                    .any(|c| c["type"] == "Ready" && c["status"] == "True")
                    .then_some(())
            },
        );
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

    /// Builds the operator's image, loads it into every host, and returns its name.
    #[track_caller]
    pub fn image(&self) -> String {
        self.change(&["image"]).text().to_owned()
    }

    /// Runs a command inside a node's host, as root.
    #[track_caller]
    pub fn host_exec(&self, node: &str, command: &[&str]) -> Output {
        run(self.command("exec").arg(node).args(command), None, COMMAND)
    }

    #[track_caller]
    pub fn helm(&self, args: &[&str]) -> Output {
        run(self.command("helm").args(args), None, COMMAND)
    }

    /// An administrator's kubeconfig that works in this machine's own network namespace, through the load balancer.
    #[track_caller]
    pub fn kubeconfig(&self) -> PathBuf {
        run(&mut self.command("kubeconfig"), None, COMMAND).succeeded().text().into()
    }

    /// Runs this checkout's program as an administrator does.
    #[track_caller]
    pub fn sluice(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        run(command.args(args).env("KUBECONFIG", self.kubeconfig()), None, COMMAND)
    }

    /// The program with the bed's commands, for what runs beside a test.
    pub fn script(&self) -> PathBuf {
        self.script.clone()
    }

    /// The same for the apiserver of one control plane only.
    #[track_caller]
    pub fn kubeconfig_of(&self, node: &str) -> PathBuf {
        run(self.command("kubeconfig").arg(node), None, COMMAND).succeeded().text().into()
    }

    /// Runs the current kubectl through the apiserver of one control plane only.
    #[track_caller]
    pub fn kubectl_through(&self, node: &str, args: &[&str]) -> Output {
        let kubeconfig = self.kubeconfig_of(node);
        // In front: what follows a `--` is not kubectl's.
        run(self.command("kubectl").arg("--kubeconfig").arg(kubeconfig).args(args), None, COMMAND)
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.script);
        command.arg(subcommand);
        command
    }

    #[track_caller]
    fn change(&self, args: &[&str]) -> Output {
        run(Command::new(&self.script).args(args), None, CHANGE).succeeded()
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Output {
    command: String,
    status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// The exit code; absent after a signal.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Standard output without the newline at its end.
    pub fn text(&self) -> &str {
        self.stdout.trim_end()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("no JSON: {e}\n{self}"))
    }

    /// Fails the test unless the command succeeded.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert!(self.success(), "failed: {self}");
        self
    }

    /// Fails the test unless the command failed; returns what it said on standard error.
    #[track_caller]
    pub fn failed(self) -> String {
        assert!(!self.success(), "ought to have failed: {self}");
        self.stderr.trim_end().to_owned()
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n--- stdout\n{}\n--- stderr\n{}", self.command, self.stdout, self.stderr)
    }
}

#[track_caller]
fn run(command: &mut Command, input: Option<&str>, deadline: Duration) -> Output {
    let description = format!("{command:?}");
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|e| panic!("start {description}: {e}"));
    let stdout = collect(child.stdout.take().expect("piped"));
    let stderr = collect(child.stderr.take().expect("piped"));
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        // A command that ends early closes the pipe; what it says about that matters more.
        let _ = pipe.write_all(input.as_bytes());
    }
    let end = Instant::now() + deadline;
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait for a child") {
            break status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            panic!("not done after {deadline:?}: {description}");
        }
        thread::sleep(Duration::from_millis(10));
    };
    let text = |output: JoinHandle<String>| output.join().expect("read a pipe");
    Output { command: description, status, stdout: text(stdout), stderr: text(stderr) }
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A command that is still running. Dropping it ends it.
pub struct Session {
    child: Child,
    stdout: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
}

impl Session {
    fn start(command: &mut Command) -> Self {
        let child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|e| panic!("start {command:?}: {e}"));
        let pipe = BufReader::new(child.stdout.take().expect("piped"));
        let stderr = Some(collect(child.stderr.take().expect("piped")));
        let (lines, stdout) = mpsc::channel();
        thread::spawn(move || {
            pipe.lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
        });
        Self { child, stdout, stderr }
    }

    pub fn say(&mut self, line: &str) {
        // If it has ended already, the answer that never comes tells why.
        let _ = writeln!(self.child.stdin.as_mut().expect("piped"), "{line}");
    }

    /// The next line of output with this text in it, or, if the command ends first, what it said on standard error.
    #[track_caller]
    pub fn line_with(&mut self, text: &str, deadline: Duration) -> Result<String, String> {
        let end = Instant::now() + deadline;
        loop {
            match self.stdout.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(text) => return Ok(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    panic!("waited {deadline:?} in vain for a line with {text:?}")
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let stderr = self.stderr.take().map(|s| s.join().expect("read a pipe"));
                    return Err(stderr.unwrap_or_default().trim_end().to_owned());
                }
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
