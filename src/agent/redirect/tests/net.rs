//! Networks of their own, in which a test is as alone as a node: they need root, `unshare`, `ip` and
//! `nsenter`.

use std::{
    fs::File,
    io::Read,
    process::{Child, Command, Stdio},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Runs lines of shell where this thread is.
pub fn run(lines: &str) {
    eprintln!("+ {lines}");
    let status = Command::new("sh").args(["-euc", lines]).status().unwrap();
    assert!(status.success(), "{lines}: {status}");
}

/// A network, as long as this lives.
#[derive(Debug)]
pub struct Net(Child);

impl Net {
    /// One with nothing but loopback.
    pub fn new() -> Self {
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 600"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
        Self(child)
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// Takes the test in there: a thread of its own with a runtime that has no other.
    pub fn with<T: Send>(&self, test: impl AsyncFnOnce() -> T + Send) -> T {
        let inside = || {
            let net = File::open(self.path()).unwrap();
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(rustix::fd::AsFd::as_fd(&net), kind).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(test())
        };
        std::thread::scope(|scope| scope.spawn(inside).join().unwrap())
    }

    /// Has no connection tracked here. Must be called within [`Net::with`].
    pub fn track_nothing() {
        run("nft -f - <<'END'
table inet untracked {
  chain out { type filter hook output priority raw; notrack; }
  chain in { type filter hook prerouting priority raw; notrack; }
}
END");
    }

    /// Joins the two by a cable: 10.9.0.1 and fd00::1 are here, 10.9.0.2 and fd00::2 there.
    pub fn connect(&self, other: &Self) {
        let (here, there) = (self.path(), other.path());
        let pid = other.0.id();
        run(&format!(
            "nsenter --net={here} sh -euc '
               ip link add cable type veth peer name cable netns {pid}
               ip addr add 10.9.0.1/24 dev cable; ip addr add fd00::1/64 dev cable nodad
               ip link set cable up'
             nsenter --net={there} sh -euc '
               ip addr add 10.9.0.2/24 dev cable; ip addr add fd00::2/64 dev cable nodad
               ip link set cable up'"
        ));
    }

    /// Somebody who is there.
    pub fn asker(&self) -> Asker {
        Asker(self.path())
    }
}

/// A process of a network.
#[derive(Debug)]
pub struct Asker(String);

impl Asker {
    /// Connects from there, asks for a stream, and tells the first line of the answer; empty where
    /// there is none.
    pub fn ask(&self, host: &str, port: u16) -> String {
        let net = format!("--net={}", self.0);
        let script = format!(
            "exec 3<>/dev/tcp/{host}/{port}; printf 'GET /exec/x HTTP/1.1\\r\\n\\r\\n' >&3; \
             IFS= read -r line <&3; printf %s \"$line\""
        );
        let asked = ["timeout", "5", "bash", "-c", &script];
        let out = Command::new("nsenter").arg(net).args(asked).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim_end().to_owned()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
