//! The last line of the apiserver's own log that says something.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Where the kubelet keeps the logs of a node's containers.
pub const LOGS: &str = "/var/log/pods";

/// So much of a log is read, from its end: the usage text that follows an error has some 100 KiB.
const TAIL: u64 = 512 * 1024;

/// So many characters of a line are shown.
const SHOWN: usize = 300;

/// The last line that says something in the newest log of an apiserver in this folder.
pub fn last_log_line(logs: &Path) -> Option<String> {
    let mut found = apiserver_logs(logs).unwrap_or_default();
    found.sort_by_key(|(modified, _)| std::cmp::Reverse(*modified));
    // A container that has just been started again has said nothing yet.
    found.into_iter().find_map(|(_, path)| said(&tail(&path).ok()?))
}

fn apiserver_logs(logs: &Path) -> io::Result<Vec<(SystemTime, PathBuf)>> {
    let mut found = Vec::new();
    for pod in fs::read_dir(logs)? {
        let pod = pod?;
        if !pod.file_name().to_string_lossy().starts_with("kube-system_kube-apiserver-") {
            continue;
        }
        let Ok(files) = fs::read_dir(pod.path().join("kube-apiserver")) else { continue };
        for file in files.flatten() {
            let path = file.path();
            if path.extension().is_some_and(|extension| extension == "log")
                && let Ok(modified) = file.metadata().and_then(|meta| meta.modified())
            {
                found.push((modified, path));
            }
        }
    }
    Ok(found)
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last line that says something, of a log as container runtimes write it.
fn said(log: &str) -> Option<String> {
    let mut last: [Option<String>; 3] = [None, None, None];
    for line in lines(log) {
        if let Some(weight) = weight(&line) {
            last[weight] = Some(line);
        }
    }
    let line = last.into_iter().flatten().next()?;
    Some(match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    })
}

/// The lines that the program wrote: `<time> <stream> <F or P> <text>`, where P is a part that the
/// next line goes on with.
fn lines(log: &str) -> impl Iterator<Item = String> {
    let mut part = String::new();
    log.lines().filter_map(move |line| {
        let mut fields = line.splitn(4, ' ');
        let (_, _, tag) = (fields.next()?, fields.next()?, fields.next()?);
        part.push_str(fields.next().unwrap_or_default());
        (tag != "P").then(|| std::mem::take(&mut part).trim_end().to_owned())
    })
}

/// How much a line says, 0 the most; `None` for nothing.
fn weight(line: &str) -> Option<usize> {
    let klog = |severity: char| {
        line.strip_prefix(severity)
            .and_then(|rest| rest.get(..4))
            .is_some_and(|date| date.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let fatal = ["Error:", "error:", "panic:", "fatal error:"].iter();
    if fatal.into_iter().any(|start| line.starts_with(start)) || klog('F') {
        Some(0)
    } else if klog('E') {
        Some(1)
    } else if line.is_empty() || line.starts_with(char::is_whitespace) || is_usage(line) {
        None
    } else {
        Some(2)
    }
}

/// The help that follows a command line which is not understood.
fn is_usage(line: &str) -> bool {
    line.starts_with("Usage:") || line.ends_with("flags:") || line.starts_with("Flags:")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: &[&str]) -> String {
        lines.iter().map(|line| format!("2026-01-02T03:04:05.6Z stderr {line}\n")).collect()
    }

    #[test]
    fn the_line_that_says_most_is_taken() {
        for (lines, expected) in [
            (&[][..], None),
            (&["F "], None),
            (
                &[
                    "F Error: unknown gate: X",
                    "F Usage:",
                    "F   kube-apiserver [flags]",
                    "F ",
                    "F Generic flags:",
                    "F       --x int   a number",
                ],
                Some("Error: unknown gate: X"),
            ),
            (
                &[
                    "F I0102 03:04:05.0 1 a.go:1] fine",
                    "F F0102 03:04:06.0 1 a.go:2] no etcd",
                    "F goroutine 1 [running]:",
                ],
                Some("F0102 03:04:06.0 1 a.go:2] no etcd"),
            ),
            (&["F E0102 a.go:1] no", "F I0102 a.go:1] fine"], Some("E0102 a.go:1] no")),
            (&["F Everything", "F I0102 a.go:1] fine"], Some("I0102 a.go:1] fine")),
            (&["P Error: one", "F  line"], Some("Error: one line")),
        ] {
            assert_eq!(said(&log(lines)).as_deref(), expected, "{lines:?}");
        }
        // No log of a container runtime, or one that is cut off.
        for text in ["", "x", "a b", "a b F"] {
            assert_eq!(said(text), None, "{text:?}");
        }
        let long = said(&log(&[&format!("F Error: {}", "ä".repeat(1_000))])).unwrap();
        assert_eq!(long.chars().count(), SHOWN + 1);
    }

    #[test]
    fn the_newest_log_with_something_in_it() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(last_log_line(folder.path()), None);
        assert_eq!(last_log_line(&folder.path().join("none")), None);
        let old = SystemTime::UNIX_EPOCH;
        let mut age = 0;
        let mut add = |pod: &str, container: &str, name: &str, text: &str| {
            let folder = folder.path().join(pod).join(container);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(name), text).unwrap();
            age += 1;
            let file = File::options().write(true).open(folder.join(name)).unwrap();
            file.set_modified(old + std::time::Duration::from_secs(age)).unwrap();
        };
        let (pod, name) = ("kube-system_kube-apiserver-cp1_1", "kube-apiserver");
        add(pod, name, "0.log", &log(&["F Error: old"]));
        add("kube-system_kube-apiserver-cp1_2", name, "7.log", &log(&["F Error: new"]));
        add("kube-system_kube-apiserver-cp1_2", name, "8.log", "");
        add("kube-system_kube-apiserver-cp1_2", name, "7.log.gz", &log(&["F Error: packed"]));
        add("kube-system_etcd-cp1_2", "etcd", "0.log", &log(&["F Error: etcd"]));
        add("default_kube-apiserver-x_2", name, "0.log", &log(&["F Error: a stranger's"]));
        assert_eq!(last_log_line(folder.path()).as_deref(), Some("Error: new"));
    }
}
