//! What a kubelet's command line says, wherever it was found: at the process, in the files of its
//! unit, or among the arguments of k3s and RKE2 ([`super::rancher`]).

use super::{FEATURE_GATES, Flag, Known, Part, go_bool};

/// What a command line, or somebody about it, says of a boolean flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlagValue {
    /// The flag is on the command line and true.
    On,
    /// The flag is on the command line and false. Harmless until the flag is removed.
    Off,
    /// The flag is not on the command line.
    Absent,
    /// There is a statement, but it cannot be understood.
    Unreadable,
}

impl FlagValue {
    /// The name that `StreamingNode` uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::On => "On",
            Self::Off => "Off",
            Self::Absent => "Absent",
            Self::Unreadable => "Unreadable",
        }
    }
}

/// The flags of kubelets from 1.4 on that are booleans (`cmd/kubelet/app/options` of the releases).
pub(super) const KNOWN: Known = Known {
    booleans: &[
        "add-dir-header",
        "allow-privileged",
        "alsologtostderr",
        "anonymous-auth",
        "authentication-token-webhook",
        "babysit-daemons",
        "cgroups-per-qos",
        "configure-cbr0",
        "containerized",
        "contention-profiling",
        "cpu-cfs-quota",
        "docker-only",
        "docker-tls",
        "enable-cadvisor-json-endpoints",
        "enable-controller-attach-detach",
        "enable-cri",
        "enable-custom-metrics",
        "enable-debugging-handlers",
        "enable-load-reader",
        "enable-server",
        "exit-on-lock-contention",
        "experimental-allocatable-ignore-eviction",
        "experimental-check-node-capabilities-before-mount",
        "experimental-dockershim",
        "experimental-fail-swap-on",
        "experimental-kernel-memcg-notification",
        "experimental-logging-sanitization",
        "fail-cgroupv1",
        "fail-swap-on",
        "help",
        "keep-terminated-pod-volumes",
        "kernel-memcg-notification",
        "local-storage-capacity-isolation",
        "log-cadvisor-usage",
        "log-json-split-stream",
        "log-text-split-stream",
        "logtostderr",
        "make-iptables-util-chains",
        "one-output",
        "protect-kernel-defaults",
        "really-crash-for-testing",
        "reconcile-cidr",
        "redirect-container-streaming",
        "register-node",
        "register-schedulable",
        "require-kubeconfig",
        "rotate-certificates",
        "rotate-server-certificates",
        "runonce",
        "seccomp-default",
        "serialize-image-pulls",
        "skip-headers",
        "skip-log-headers",
        "storage-driver-secure",
        "version",
        "windows-service",
    ],
    valued: &["config", "config-dir", "container-runtime-endpoint", FEATURE_GATES],
};

/// What arguments say about a boolean flag; the last one wins.
///
/// No value is true, and a value is never a word of its own. Where it depends on what nobody knows
/// whether a word is the flag, nothing certain is said.
pub fn boolean<'a>(args: impl IntoIterator<Item = &'a str>, flag: &str) -> FlagValue {
    let words: Vec<&str> = args.into_iter().collect();
    let mut says = FlagValue::Absent;
    let mut certain = true;
    for part in super::parts(&words, KNOWN) {
        let Part::Flag(found) = part else { continue };
        if found.name == flag {
            certain &= found.certain;
            says = value(found.value.unwrap_or("true"));
        }
    }
    if certain { says } else { FlagValue::Unreadable }
}

/// The value of a flag with a text; the last one wins.
pub fn text<'a>(args: impl IntoIterator<Item = &'a str>, flag: &str) -> Option<&'a str> {
    let words: Vec<&str> = args.into_iter().collect();
    super::text(&words, KNOWN, flag)
}

/// What a command line says of a flag with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text<'a> {
    /// The flag is not there.
    Absent,
    /// It has this value.
    Is(&'a str),
    /// It depends on what nobody knows whether it is there, or it has no value.
    Unclear,
}

/// The value of a flag with a text, where it is known for certain; the last one wins.
pub fn certain_text<'a>(args: &[&'a str], flag: &str) -> Text<'a> {
    let mut says = Text::Absent;
    for part in parts(args) {
        says = match part {
            Part::Flag(Flag { name, value, certain, .. }) if name == flag => match value {
                Some(value) if certain && says != Text::Unclear => Text::Is(value),
                _ => Text::Unclear,
            },
            Part::End { certain: false, .. } => Text::Unclear,
            Part::Flag(_) | Part::End { .. } | Part::Variable { .. } => continue,
        };
    }
    says
}

/// The parts of a kubelet's arguments.
pub fn parts<'a>(args: &[&'a str]) -> Vec<Part<'a>> {
    super::parts(args, KNOWN)
}

fn value(text: &str) -> FlagValue {
    match go_bool(text) {
        Some(true) => FlagValue::On,
        Some(false) => FlagValue::Off,
        None => FlagValue::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edit::environment;

    const FLAG: &str = "redirect-container-streaming";

    #[test]
    fn command_lines() {
        for (line, expected) in [
            ("kubelet", FlagValue::Absent),
            ("kubelet --redirect-container-streaming", FlagValue::On),
            ("kubelet --redirect-container-streaming=true --v=2", FlagValue::On),
            ("kubelet --redirect-container-streaming=T", FlagValue::On),
            ("kubelet --redirect_container_streaming=1", FlagValue::On),
            ("kubelet --redirect-container-streaming=false", FlagValue::Off),
            (
                "kubelet --redirect-container-streaming=true --redirect-container-streaming=false",
                FlagValue::Off,
            ),
            (
                "kubelet --redirect-container-streaming=false --redirect-container-streaming",
                FlagValue::On,
            ),
            // A word of its own is no value of a boolean flag.
            ("kubelet --redirect-container-streaming false", FlagValue::On),
            ("kubelet --redirect-container-streaming=maybe", FlagValue::Unreadable),
            ("kubelet --redirect-container-streaming=", FlagValue::Unreadable),
            ("kubelet -redirect-container-streaming", FlagValue::Absent),
            ("kubelet --redirect-container-streaming-x", FlagValue::Absent),
            ("kubelet -- --redirect-container-streaming", FlagValue::Absent),
            // The next word is a value, whatever it looks like.
            ("kubelet --config -- --redirect-container-streaming", FlagValue::On),
            ("kubelet --config --redirect-container-streaming", FlagValue::Absent),
            ("kubelet --runonce --redirect-container-streaming", FlagValue::On),
            // Nobody knows whether this one takes a value.
            (
                "kubelet --redirect-container-streaming --x --redirect-container-streaming=false",
                FlagValue::Unreadable,
            ),
            ("kubelet --x -- --redirect-container-streaming", FlagValue::Unreadable),
            ("kubelet --x y --redirect-container-streaming", FlagValue::On),
        ] {
            assert_eq!(boolean(line.split(' '), FLAG), expected, "{line}");
        }
    }

    #[test]
    fn texts() {
        let flag = "container-runtime-endpoint";
        for (line, expected) in [
            ("kubelet --container-runtime-endpoint=unix:///a --x", Some("unix:///a")),
            ("kubelet --container-runtime-endpoint /a", Some("/a")),
            ("kubelet --container_runtime_endpoint=/a --container-runtime-endpoint=/b", Some("/b")),
            ("kubelet --container-runtime-endpoint", None),
            ("kubelet --container-runtime=remote", None),
        ] {
            assert_eq!(text(line.split(' '), flag), expected, "{line}");
        }
    }

    #[test]
    fn texts_that_are_certain() {
        for (line, expected) in [
            ("kubelet --v=2", Text::Absent),
            ("kubelet --config /a", Text::Is("/a")),
            ("kubelet --config=/a --config=/b", Text::Is("/b")),
            ("kubelet --config=", Text::Is("")),
            ("kubelet --config", Text::Unclear),
            // Nobody knows whether the first one takes a value.
            ("kubelet --x --config=/a", Text::Unclear),
            ("kubelet --x --config=/a --config=/b", Text::Unclear),
            ("kubelet --x -- --config=/a", Text::Unclear),
            ("kubelet --runonce --config=/a", Text::Is("/a")),
            ("kubelet -- --config=/a", Text::Absent),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(certain_text(&words, "config"), expected, "{line}");
        }
    }

    #[test]
    fn environment_files() {
        for (file, expected) in [
            ("", FlagValue::Absent),
            ("KUBELET_EXTRA_ARGS=\n", FlagValue::Absent),
            (
                "KUBELET_KUBEADM_ARGS=\"--network-plugin=cni --redirect-container-streaming=true\"\n",
                FlagValue::On,
            ),
            ("KUBELET_EXTRA_ARGS='--redirect-container-streaming=false'", FlagValue::Off),
            ("KUBELET_EXTRA_ARGS=--redirect-container-streaming", FlagValue::On),
            ("# KUBELET_EXTRA_ARGS=--redirect-container-streaming\n", FlagValue::Absent),
            (
                "A=--redirect-container-streaming\nB=--redirect-container-streaming=false\n",
                FlagValue::Off,
            ),
            // Over two lines, and in quotes within quotes.
            ("A=\"--v=2 \\\n  --redirect-container-streaming\"\n", FlagValue::On),
            ("A=\"'--redirect-container-streaming'\"\n", FlagValue::On),
        ] {
            let words = environment::words(file);
            assert_eq!(boolean(words.iter().map(String::as_str), FLAG), expected, "{file}");
        }
    }
}
