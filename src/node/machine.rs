//! Which machine this is, and which of its starts: what the kubelet tells of its Node, too.

use super::host::Host;

/// A new number at each start of the kernel. Every process sees the same one.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The machine's own number, which the kubelet reads there first.
const MACHINE: &str = "/etc/machine-id";

/// One start of one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// The number of the start.
    pub boot: Option<String>,
    /// The machine's number; `None` where it cannot be seen.
    pub id: Option<String>,
}

impl Machine {
    /// The machine whose folders these are.
    pub fn read(host: &Host) -> Self {
        let read = |path: &str| {
            let text = std::fs::read_to_string(host.path(path)).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let own = || std::fs::read_to_string(BOOT).ok().map(|text| text.trim().to_owned());
        // Not every program has the node's /proc.
        Self { boot: read(BOOT).or_else(own), id: read(MACHINE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_kubelet_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::new(folder.path().into());
        let own = std::fs::read_to_string(BOOT).unwrap().trim().to_owned();
        assert_eq!(Machine::read(&host), Machine { boot: Some(own), id: None });
        for (path, text) in [(BOOT, "b-1\n"), (MACHINE, "m1\n")] {
            let path = host.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let read = Machine { boot: Some("b-1".to_owned()), id: Some("m1".to_owned()) };
        assert_eq!(Machine::read(&host), read);
        // As in an image that has never been started.
        std::fs::write(host.path(MACHINE), "\n").unwrap();
        assert_eq!(Machine::read(&host).id, None);
    }
}
