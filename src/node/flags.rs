//! What a command line says about a flag. Pure.

use crate::decision::{evidence::Says, gate::go_bool};

/// What arguments say about a boolean flag; the last one wins.
///
/// As the kubelet reads them (pflag with `WordSepNormalizeFunc`): two dashes, `_` for `-`, no value
/// is true, and a value is never a word of its own.
pub fn boolean<'a>(args: impl IntoIterator<Item = &'a str>, flag: &str) -> Says {
    let mut says = Says::Absent;
    for arg in args {
        let Some(rest) = arg.strip_prefix("--") else { continue };
        if rest.is_empty() {
            break;
        }
        let (name, value) = rest.split_once('=').unwrap_or((rest, "true"));
        if name.replace('_', "-") == flag {
            says = match go_bool(value) {
                Some(true) => Says::On,
                Some(false) => Says::Off,
                None => Says::Unreadable,
            };
        }
    }
    says
}

/// The value of a flag with a text; the last one wins.
pub fn text<'a>(args: impl IntoIterator<Item = &'a str>, flag: &str) -> Option<&'a str> {
    let mut value = None;
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let Some(rest) = arg.strip_prefix("--") else { continue };
        match rest.split_once('=') {
            Some((name, text)) if name.replace('_', "-") == flag => value = Some(text),
            None if rest.replace('_', "-") == flag => value = args.next(),
            _ => {}
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edit::environment;

    const FLAG: &str = "redirect-container-streaming";

    #[test]
    fn command_lines() {
        for (line, expected) in [
            ("kubelet", Says::Absent),
            ("kubelet --redirect-container-streaming", Says::On),
            ("kubelet --redirect-container-streaming=true --v=2", Says::On),
            ("kubelet --redirect-container-streaming=T", Says::On),
            ("kubelet --redirect_container_streaming=1", Says::On),
            ("kubelet --redirect-container-streaming=false", Says::Off),
            (
                "kubelet --redirect-container-streaming=true --redirect-container-streaming=false",
                Says::Off,
            ),
            (
                "kubelet --redirect-container-streaming=false --redirect-container-streaming",
                Says::On,
            ),
            // A word of its own is no value of a boolean flag.
            ("kubelet --redirect-container-streaming false", Says::On),
            ("kubelet --redirect-container-streaming=maybe", Says::Unreadable),
            ("kubelet --redirect-container-streaming=", Says::Unreadable),
            ("kubelet -redirect-container-streaming", Says::Absent),
            ("kubelet --redirect-container-streaming-x", Says::Absent),
            ("kubelet -- --redirect-container-streaming", Says::Absent),
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
    fn environment_files() {
        for (file, expected) in [
            ("", Says::Absent),
            ("KUBELET_EXTRA_ARGS=\n", Says::Absent),
            (
                "KUBELET_KUBEADM_ARGS=\"--network-plugin=cni --redirect-container-streaming=true\"\n",
                Says::On,
            ),
            ("KUBELET_EXTRA_ARGS='--redirect-container-streaming=false'", Says::Off),
            ("KUBELET_EXTRA_ARGS=--redirect-container-streaming", Says::On),
            ("# KUBELET_EXTRA_ARGS=--redirect-container-streaming\n", Says::Absent),
            (
                "A=--redirect-container-streaming\nB=--redirect-container-streaming=false\n",
                Says::Off,
            ),
            // Over two lines, and in quotes within quotes.
            ("A=\"--v=2 \\\n  --redirect-container-streaming\"\n", Says::On),
            ("A=\"'--redirect-container-streaming'\"\n", Says::On),
        ] {
            let words = environment::words(file);
            assert_eq!(boolean(words.iter().map(String::as_str), FLAG), expected, "{file}");
        }
    }
}
