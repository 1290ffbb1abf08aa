//! The parts of the node's file system that a program on it sees, mounted below one folder.

use std::path::{Path, PathBuf};

/// Where the node's own folders are: `/host/proc` is the node's `/proc`.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
    shown: &'static [&'static str],
}

/// The folders of the node that programs on it may have. What lies in none of them that is there may
/// exist on the node and cannot be seen.
const SHOWN: [&str; 6] =
    ["/etc", "/var/lib/kubelet", "/run", "/proc", "/usr/lib/systemd", "/lib/systemd"];

/// The same for one that has of `/run` only what it needs of systemd.
const SHOWN_WITHOUT_RUN: [&str; 6] =
    ["/etc", "/var/lib/kubelet", "/run/systemd", "/proc", "/usr/lib/systemd", "/lib/systemd"];

/// `/run` by its other name, which is a link.
const VAR_RUN: &str = "/var/run/";

/// Where the kubelet's own dockershim listens, which went with 1.24.
const DOCKERSHIM: &str = "/run/dockershim.sock";

/// Sockets at which runtimes listen where nobody says otherwise.
const SOCKETS: [&str; 5] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/cri-dockerd.sock",
    DOCKERSHIM,
];

impl Host {
    /// The node below this folder; `/` for a process that runs on the node itself.
    pub fn new(root: PathBuf) -> Self {
        Self { root, shown: &SHOWN }
    }

    /// The same for a program that has of the node's `/run` only `/run/systemd` and the system bus.
    pub fn without_run(root: PathBuf) -> Self {
        Self { root, shown: &SHOWN_WITHOUT_RUN }
    }

    /// Whether a file that is not found here is not there on the node either.
    pub fn shows(&self, path: &str) -> bool {
        let in_run = path.strip_prefix(VAR_RUN).map(|rest| format!("/run/{rest}"));
        let path = in_run.as_deref().unwrap_or(path);
        let holds = |folder: &str| {
            let below = path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
            below && self.path(folder).is_dir()
        };
        self.root == Path::new("/") || self.shown.iter().any(|folder| holds(folder))
    }

    /// The node's processes.
    pub fn proc(&self) -> PathBuf {
        self.path("/proc")
    }

    /// Where a path of the node is for us. `/var/run` is `/run` on every node, but only the link's
    /// target is mounted.
    pub fn path(&self, path: &str) -> PathBuf {
        let path = match path.strip_prefix(VAR_RUN) {
            Some(rest) => Path::new("run").join(rest),
            None => path.trim_start_matches('/').into(),
        };
        self.root.join(path)
    }

    /// The same with the links at its end followed as the node's own programs do.
    pub fn resolved(&self, path: &str) -> PathBuf {
        const LINKS: usize = 8;
        let mut now = path.to_owned();
        for _ in 0..LINKS {
            let Ok(target) = std::fs::read_link(self.path(&now)) else { break };
            let folder = Path::new(&now).parent().unwrap_or(Path::new("/"));
            now = folder.join(target).to_string_lossy().into_owned();
        }
        self.path(&now)
    }

    /// Where the kubelet's runtime may listen, the likeliest first: where the kubelet was told, or at
    /// one of the usual sockets. A kubelet without `--container-runtime=remote` uses its own dockershim,
    /// where it still has one; Docker has a socket of containerd beside it.
    pub fn sockets(&self, told: Option<&str>, remote: bool) -> Vec<PathBuf> {
        if let Some(told) = told {
            return vec![self.path(told.strip_prefix("unix://").unwrap_or(told))];
        }
        let first = (!remote).then_some(DOCKERSHIM);
        let others = SOCKETS.into_iter().filter(|socket| Some(*socket) != first);
        let usual = first.into_iter().chain(others).map(|socket| self.path(socket));
        let there: Vec<PathBuf> = usual.filter(|socket| socket.exists()).collect();
        if there.is_empty() { vec![self.path(SOCKETS[0])] } else { there }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_node() {
        let host = Host::new("/host".into());
        for (path, expected) in [
            ("/proc", "/host/proc"),
            ("/run/containerd/containerd.sock", "/host/run/containerd/containerd.sock"),
            ("/var/run/dockershim.sock", "/host/run/dockershim.sock"),
            ("/etc/default/kubelet", "/host/etc/default/kubelet"),
        ] {
            assert_eq!(host.path(path), PathBuf::from(expected), "{path}");
        }
        for (told, expected) in [
            ("unix:///var/run/crio/crio.sock", "/host/run/crio/crio.sock"),
            ("/run/x.sock", "/host/run/x.sock"),
        ] {
            assert_eq!(host.sockets(Some(told), true), [PathBuf::from(expected)]);
        }
    }

    #[test]
    fn what_is_not_mounted_may_be_there() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["etc", "var/lib/kubelet", "run/systemd"] {
            std::fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        let whole = Host::new(folder.path().into());
        let less = Host::without_run(folder.path().into());
        for (path, shown, shown_without_run) in [
            ("/etc/kubernetes/kubelet.env", true, true),
            ("/etcetera/kubelet.env", false, false),
            ("/var/lib/kubelet/kubeadm-flags.env", true, true),
            // Its parents are there only because something in them is mounted.
            ("/var/lib/k0s/kubelet.env", false, false),
            ("/run/kubelet.env", true, false),
            ("/var/run/kubelet.env", true, false),
            ("/run/systemd/system/kubelet.service", true, true),
            ("/usr/lib/systemd/kubelet.env", false, false),
            ("/opt/kubelet.env", false, false),
        ] {
            assert_eq!(whole.shows(path), shown, "{path}");
            assert_eq!(less.shows(path), shown_without_run, "{path} without /run");
        }
        assert!(Host::new("/".into()).shows("/opt/kubelet.env"));
    }

    #[test]
    fn the_usual_sockets_that_exist_may_be_the_runtimes() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::new(folder.path().into());
        let sockets = |remote| {
            let found = host.sockets(None, remote).into_iter();
            let run = folder.path().join("run");
            found
                .map(|socket| socket.strip_prefix(&run).unwrap().display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(sockets(true), ["containerd/containerd.sock"]);
        for socket in ["dockershim.sock", "crio/crio.sock"] {
            let path = folder.path().join("run").join(socket);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        assert_eq!(sockets(true), ["crio/crio.sock", "dockershim.sock"]);
        assert_eq!(sockets(false), ["dockershim.sock", "crio/crio.sock"]);
    }
}
