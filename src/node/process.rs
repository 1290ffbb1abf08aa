//! The kubelet among the node's processes.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// A running kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number on the node.
    pub pid: u32,
    /// When it was started, in clock ticks after the boot: tells it from a later one with its number.
    pub start: u64,
    /// Its command line.
    pub args: Vec<String>,
}

/// Why there is not one kubelet to be seen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node does not show its processes.
    #[error("the node's processes cannot be read ({0})")]
    Unreadable(#[from] io::Error),
    /// None runs.
    #[error("no kubelet runs on this node")]
    NotRunning,
    /// More than one runs: such a node cannot be understood.
    #[error("{0} kubelets run on this node")]
    Several(usize),
}

/// The node's kubelet.
///
/// # Errors
/// Where there is not exactly one to be seen.
pub fn kubelet(proc: &Path) -> Result<Process, Error> {
    let mut found = find(proc)?;
    match (found.pop(), found.len()) {
        (Some(process), 0) => Ok(process),
        (None, _) => Err(Error::NotRunning),
        (Some(_), others) => Err(Error::Several(others + 1)),
    }
}

/// The systemd unit to which a process belongs, as its control groups tell; `None` without systemd.
pub fn unit(proc: &Path, process: &Process) -> Option<String> {
    let groups = fs::read_to_string(proc.join(process.pid.to_string()).join("cgroup")).ok()?;
    let mut segments = groups.lines().flat_map(|line| line.rsplit('/'));
    segments.find(|segment| segment.ends_with(".service")).map(str::to_owned)
}

/// Looks for the node's kubelets: those in the node's own PID namespace, since one in a container
/// of a nested cluster is not the node's.
fn find(proc: &Path) -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(proc)? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let folder = entry.path();
        // A process that ends while it is looked at is none.
        if is_kubelet(&folder).unwrap_or(false)
            && let Some(process) = read(&folder, pid)
        {
            found.push(process);
        }
    }
    Ok(found)
}

/// Whether this process still runs.
pub fn runs(proc: &Path, process: &Process) -> bool {
    start(&proc.join(process.pid.to_string())) == Some(process.start)
}

/// How long this process has been running; `None` if it does not any more.
pub fn age(proc: &Path, process: &Process) -> Option<Duration> {
    if !runs(proc, process) {
        return None;
    }
    let uptime = fs::read_to_string(proc.join("uptime")).ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let ticks = rustix::param::clock_ticks_per_second();
    let started = process.start as f64 / ticks as f64;
    Duration::try_from_secs_f64((uptime - started).max(0.0)).ok()
}

fn is_kubelet(folder: &Path) -> io::Result<bool> {
    let name = fs::read_to_string(folder.join("comm"))?;
    let is = match name.trim_end() {
        "kubelet" => true,
        // One binary for everything, up to 1.18.
        "hyperkube" => arguments(folder)?.iter().skip(1).any(|arg| arg == "kubelet"),
        _ => false,
    };
    Ok(is && namespaces(folder)? == 1)
}

/// In how many PID namespaces, from the node's own on, the process has a number.
fn namespaces(folder: &Path) -> io::Result<usize> {
    let status = fs::read_to_string(folder.join("status"))?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    // Kernels before 4.1 do not tell.
    Ok(numbers.map_or(1, |numbers| numbers.split_whitespace().count()))
}

fn read(folder: &Path, pid: u32) -> Option<Process> {
    let start = start(folder)?;
    // A process that has just been forked has its parent's command line, and a dead one none.
    let args = arguments(folder).ok().filter(|args| !args.is_empty())?;
    Some(Process { pid, start, args })
}

fn arguments(folder: &Path) -> io::Result<Vec<String>> {
    let bytes = fs::read(folder.join("cmdline"))?;
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    Ok(bytes
        .split(|byte| *byte == 0)
        .map(|arg| String::from_utf8_lossy(arg).into_owned())
        .collect())
}

/// Field 22 of `/proc/PID/stat` (proc(5)), counted after the name, which may hold anything.
fn start(folder: &Path) -> Option<u64> {
    let stat = fs::read_to_string(PathBuf::from(folder).join("stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Proc(tempfile::TempDir);

    impl Proc {
        fn add(&self, pid: u32, comm: &str, cmdline: &str, nspid: &str, start: u64) {
            let folder = self.0.path().join(pid.to_string());
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("comm"), format!("{comm}\n")).unwrap();
            fs::write(folder.join("cmdline"), cmdline.replace(' ', "\0") + "\0").unwrap();
            fs::write(folder.join("status"), format!("Name:\t{comm}\nNSpid:\t{nspid}\n")).unwrap();
            let zeros = "0 ".repeat(18);
            fs::write(folder.join("stat"), format!("{pid} (a) b) S {zeros}{start} 0")).unwrap();
        }
    }

    #[test]
    fn the_nodes_own_kubelet_is_found() {
        let proc = Proc(tempfile::tempdir().unwrap());
        proc.add(1, "systemd", "/sbin/init", "1", 3);
        proc.add(700, "kubelet", "/usr/bin/kubelet --v=2", "700", 500);
        proc.add(900, "kubelet", "/usr/bin/kubelet --nested", "900 12", 700);
        proc.add(901, "kubelet-helper", "kubelet-helper", "901", 700);
        proc.add(902, "hyperkube", "/hyperkube scheduler", "902", 700);
        fs::create_dir(proc.0.path().join("sys")).unwrap();
        let args = vec!["/usr/bin/kubelet".to_owned(), "--v=2".to_owned()];
        let expected = Process { pid: 700, start: 500, args };
        assert_eq!(kubelet(proc.0.path()).unwrap(), expected);
        assert!(runs(proc.0.path(), &expected));
        assert_eq!(age(proc.0.path(), &expected), None, "without a clock");
        let ticks = rustix::param::clock_ticks_per_second();
        fs::write(proc.0.path().join("uptime"), "30.50 12.00\n").unwrap();
        let started = Process { start: 10 * ticks, ..expected.clone() };
        assert_eq!(age(proc.0.path(), &started), None, "another process");
        proc.add(700, "kubelet", "/usr/bin/kubelet --v=2", "700", 10 * ticks);
        assert_eq!(age(proc.0.path(), &started), Some(Duration::from_millis(20_500)));
        proc.add(700, "kubelet", "/usr/bin/kubelet --v=2", "700", 500);

        // Another process with its number.
        proc.add(700, "kubelet", "/usr/bin/kubelet --v=2", "700", 900);
        assert!(!runs(proc.0.path(), &expected));
        fs::remove_dir_all(proc.0.path().join("700")).unwrap();
        assert!(!runs(proc.0.path(), &expected));
        let error = |proc: &Path| kubelet(proc).unwrap_err().to_string();
        assert_eq!(error(proc.0.path()), "no kubelet runs on this node");

        proc.add(903, "hyperkube", "/hyperkube kubelet --v=2", "903", 700);
        assert_eq!(kubelet(proc.0.path()).unwrap().pid, 903);
        proc.add(904, "kubelet", "/usr/bin/kubelet", "904", 800);
        assert_eq!(error(proc.0.path()), "2 kubelets run on this node");
        let nowhere = error(&proc.0.path().join("nowhere"));
        assert!(nowhere.starts_with("the node's processes cannot be read"), "{nowhere}");
    }

    #[test]
    fn the_unit_of_a_process() {
        let proc = Proc(tempfile::tempdir().unwrap());
        proc.add(700, "kubelet", "/usr/bin/kubelet", "700", 500);
        let kubelet = kubelet(proc.0.path()).unwrap();
        assert_eq!(unit(proc.0.path(), &kubelet), None);
        for (groups, expected) in [
            ("0::/system.slice/kubelet.service\n", Some("kubelet.service")),
            (
                "12:cpu:/\n1:name=systemd:/../system.slice/snap.kubelet.service\n",
                Some("snap.kubelet.service"),
            ),
            ("0::/kubepods/pod1/abc\n", None),
        ] {
            fs::write(proc.0.path().join("700/cgroup"), groups).unwrap();
            assert_eq!(unit(proc.0.path(), &kubelet).as_deref(), expected, "{groups}");
        }
    }

    #[test]
    fn this_process_is_understood_by_the_same_eyes() {
        let folder = Path::new("/proc/self");
        assert!(start(folder).unwrap() > 0);
        assert!(!arguments(folder).unwrap().is_empty());
        assert!(namespaces(folder).unwrap() >= 1);
    }
}
