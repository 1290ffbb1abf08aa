//! What can carry a stream: nothing, Sluice, and what a user would otherwise have.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::{available_parallelism, sleep},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sluice::relay::Limits;

use crate::{
    role::Process,
    usage::{memory, processor},
};

const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// One that carries.
pub struct Contender {
    pub name: &'static str,
    pub address: SocketAddr,
    /// What it needs for an idle stream.
    pub descriptors: u64,
    process: Option<Process>,
    /// Its configuration, which goes when it goes.
    _folder: Option<tempfile::TempDir>,
}

type Start = fn(&Process) -> Option<Contender>;

impl Contender {
    pub const ALL: [Start; 7] =
        [direct, unlimited, limited, haproxy, haproxy_tuned, nginx, kubelet];

    fn new(name: &'static str, process: Process) -> Self {
        Self {
            name,
            address: process.address,
            descriptors: 2,
            process: Some(process),
            _folder: None,
        }
    }

    /// Sluice with these limits.
    pub fn sluice(name: &'static str, backend: &Process, limits: Limits) -> Self {
        Self::new(name, Process::relay(backend, limits))
    }

    /// Its process and the workers of that.
    fn processes(&self) -> Vec<u32> {
        let Some(process) = &self.process else { return Vec::new() };
        let children = format!("/proc/{0}/task/{0}/children", process.id());
        let children = fs::read_to_string(children).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|id| id.parse().ok());
        std::iter::once(process.id()).chain(children).collect()
    }

    /// The processor time it has used.
    pub fn processor(&self) -> Duration {
        self.processes().into_iter().map(processor).sum()
    }

    /// What is resident of it, in KiB.
    pub fn resident(&self) -> f64 {
        self.processes().into_iter().map(|id| memory(id).now * 1024.0).sum()
    }
}

fn direct(backend: &Process) -> Option<Contender> {
    Some(Contender {
        name: "direct",
        address: backend.address,
        descriptors: 1,
        process: None,
        _folder: None,
    })
}

fn unlimited(backend: &Process) -> Option<Contender> {
    Some(Contender::sluice("Sluice", backend, Limits::default()))
}

/// A limit that is never reached: what it costs to have one.
fn limited(backend: &Process) -> Option<Contender> {
    Some(Contender::sluice(
        "Sluice, limit 64 GiB/s",
        backend,
        Limits { connection: 64 << 30, node: 0 },
    ))
}

/// As it is set up out of the box, with splicing where it sees fit.
fn haproxy(backend: &Process) -> Option<Contender> {
    haproxy_with("HAProxy", backend, "", " option splice-auto\n")
}

/// As its makers would set it up for streams like these: everything is spliced, through large pipes,
/// and what has come goes on before it looks for more.
fn haproxy_tuned(backend: &Process) -> Option<Contender> {
    haproxy_with(
        "HAProxy, tuned",
        backend,
        " tune.pipesize 1048576\n tune.recv_enough 1\n",
        " option splice-request\n option splice-response\n",
    )
}

fn haproxy_with(
    name: &'static str,
    backend: &Process,
    global: &str,
    defaults: &str,
) -> Option<Contender> {
    let program = installed("haproxy")?;
    other(name, |folder, listen| {
        let configuration = format!(
            "global\n nbthread {}\n maxconn 9850\n maxpipes 32\n{global}\
             defaults\n mode tcp\n timeout connect 5s\n timeout client 4h\n timeout server 4h\n{defaults}\
             listen streams\n bind {listen}\n server runtime {}\n",
            cores(),
            backend.address
        );
        let file = folder.join("haproxy.cfg");
        fs::write(&file, configuration).unwrap();
        let mut command = Command::new(&program);
        command.args(["-q", "-db", "-f"]).arg(file);
        command
    })
}

fn nginx(backend: &Process) -> Option<Contender> {
    let program = installed("nginx")?;
    if !Path::new(NGINX_STREAM).exists() {
        eprintln!("nginx has no stream module (package libnginx-mod-stream): left out");
        return None;
    }
    other("nginx stream", |folder, listen| {
        let port = listen.port();
        let configuration = format!(
            "load_module {NGINX_STREAM};\ndaemon off;\nworker_processes {};\npid {}/pid;\n\
             error_log /dev/null;\nevents {{ worker_connections 19800; }}\n\
             stream {{ server {{ listen 0.0.0.0:{port} backlog=4096; proxy_pass {}; proxy_timeout 4h; tcp_nodelay on; }} }}\n",
            cores(),
            folder.display(),
            backend.address
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, configuration).unwrap();
        let mut command = Command::new(&program);
        command.arg("-c").arg(file).stderr(Stdio::null());
        command
    })
}

fn kubelet(backend: &Process) -> Option<Contender> {
    if Command::new("go").arg("version").output().is_err() {
        eprintln!("there is no Go on PATH: the relay of the kubelet's kind is left out");
        return None;
    }
    let relay = other("Go, as the kubelet", |folder, listen| {
        let program = folder.join("relay");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/relay/kubelet/main.go");
        let built = Command::new("go")
            .args(["build", "-o"])
            .arg(&program)
            .arg(source)
            .env("GO111MODULE", "off")
            .env("CGO_ENABLED", "0")
            .status()
            .unwrap();
        assert!(built.success(), "{source} does not build");
        let mut command = Command::new(program);
        command.arg(listen.to_string()).arg(backend.address.to_string());
        command
    })?;
    // Go keeps a pipe for each direction, also while nothing moves.
    Some(Contender { descriptors: 6, ..relay })
}

fn other(
    name: &'static str,
    command: impl FnOnce(&Path, SocketAddr) -> Command,
) -> Option<Contender> {
    let folder = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listen = SocketAddr::from(([0, 0, 0, 0], free.port()));
    let process = Process::other(&mut command(folder.path(), listen), free);
    let started = Instant::now();
    while TcpStream::connect(free).is_err() {
        assert!(started.elapsed() < Duration::from_secs(30), "{name} does not start");
        sleep(Duration::from_millis(20));
    }
    Some(Contender { _folder: Some(folder), ..Contender::new(name, process) })
}

fn installed(program: &str) -> Option<PathBuf> {
    let found = ["/usr/sbin", "/usr/bin"].map(|folder| Path::new(folder).join(program));
    let found = found.into_iter().find(|path| path.exists());
    if found.is_none() {
        eprintln!("{program} is not installed (`make bench-relay` does that): left out");
    }
    found
}

fn cores() -> usize {
    available_parallelism().map_or(1, |cores| cores.get().min(4))
}

/// What the others are.
pub fn versions() -> Value {
    let first_line = |program: &str, argument: &str| {
        let out = Command::new(program).arg(argument).output().ok()?;
        let text = [out.stdout, out.stderr].concat();
        String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
    };
    json!({
        "haproxy": first_line("haproxy", "-v"),
        "nginx": first_line("nginx", "-v"),
        "go": first_line("go", "version"),
    })
}
