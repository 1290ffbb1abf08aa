//! The parts of the node's file system that a program on it sees, mounted below one folder.

use std::path::{Path, PathBuf};

/// Where the node's own folders are: `/host/proc` is the node's `/proc`.
#[derive(Clone, Debug)]
pub struct Host(PathBuf);

/// Sockets at which runtimes listen where nobody says otherwise.
const SOCKETS: [&str; 5] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/cri-dockerd.sock",
    "/run/dockershim.sock",
];

impl Host {
    /// The node below this folder; `/` for a process that runs on the node itself.
    pub fn new(root: PathBuf) -> Self {
        Self(root)
    }

    /// The node's processes.
    pub fn proc(&self) -> PathBuf {
        self.path("/proc")
    }

    /// Where a path of the node is for us. `/var/run` is `/run` on every node, but only the link's
    /// target is mounted.
    pub fn path(&self, path: &str) -> PathBuf {
        let path = match path.strip_prefix("/var/run/") {
            Some(rest) => Path::new("run").join(rest),
            None => path.trim_start_matches('/').into(),
        };
        self.0.join(path)
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

    /// The runtime's socket: the one that the kubelet was told, or the first usual one that exists.
    pub fn socket(&self, told: Option<&str>) -> PathBuf {
        let told = told.map(|endpoint| endpoint.strip_prefix("unix://").unwrap_or(endpoint));
        let usual = SOCKETS.into_iter().map(|socket| self.path(socket));
        told.map(|socket| self.path(socket))
            .or_else(|| usual.into_iter().find(|socket| socket.exists()))
            .unwrap_or_else(|| self.path(SOCKETS[0]))
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
        assert_eq!(
            host.socket(Some("unix:///var/run/crio/crio.sock")),
            PathBuf::from("/host/run/crio/crio.sock")
        );
        assert_eq!(host.socket(Some("/run/x.sock")), PathBuf::from("/host/run/x.sock"));
    }

    #[test]
    fn the_first_usual_socket_that_exists_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::new(folder.path().into());
        assert!(host.socket(None).ends_with("run/containerd/containerd.sock"));
        std::fs::create_dir_all(folder.path().join("run/crio")).unwrap();
        std::fs::write(folder.path().join("run/crio/crio.sock"), "").unwrap();
        assert!(host.socket(None).ends_with("run/crio/crio.sock"));
    }
}
