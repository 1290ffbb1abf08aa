//! Tables of units and drop-ins as kubeadm, kubespray and people write them.

use proptest::{prelude::*, sample::select};

use super::*;

const FLAG: &str = "redirect-container-streaming";

/// kubeadm's drop-in, with `LINE` in the section.
const KUBEADM: &str = "\
# Note: This dropin only works with kubeadm and kubelet v1.11+
[Service]
Environment=\"KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf\"
LINE# This is a file that \"kubeadm init\" and \"kubeadm join\" generates at runtime
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
";

fn kubeadm(line: &str) -> String {
    KUBEADM.replace("LINE", line)
}

fn removed(text: &str) -> Result<String, &'static str> {
    match remove_flag(text, FLAG) {
        Ok(Edited::Unchanged) => Ok(text.to_owned()),
        Ok(Edited::Changed(new)) => {
            assert_ne!(new, text);
            Ok(new)
        }
        Err(error) => {
            assert!(error.to_string().starts_with("the systemd unit, line "), "{error}");
            Err(error.reason())
        }
    }
}

#[test]
fn the_flag_goes_and_everything_else_stays() {
    for (before, after) in [
        (
            "Environment=\"KUBELET_SYSTEM_PODS_ARGS=--pod-manifest-path=/etc/kubernetes/manifests --redirect-container-streaming=true\"\n",
            "Environment=\"KUBELET_SYSTEM_PODS_ARGS=--pod-manifest-path=/etc/kubernetes/manifests\"\n",
        ),
        (
            "Environment=\"A=--redirect-container-streaming\" \"B=--b\"\n",
            "Environment=\"A=\" \"B=--b\"\n",
        ),
        ("Environment=A=--redirect-container-streaming B=b\n", "Environment=A= B=b\n"),
        ("Environment='A=--a --redirect-container-streaming'\n", "Environment='A=--a'\n"),
        ("Environment=A=\"--redirect-container-streaming --a\"\n", "Environment=A=\"--a\"\n"),
        ("Environment = \"A=--a '--redirect-container-streaming'\"\n", "Environment = \"A=--a\"\n"),
        (
            "ExecStart=/usr/bin/kubelet --redirect-container-streaming --a\n",
            "ExecStart=/usr/bin/kubelet --a\n",
        ),
        (
            "ExecStart=-/usr/bin/kubelet \"--redirect_container_streaming=1\" \"--a=b c\"\n",
            "ExecStart=-/usr/bin/kubelet \"--a=b c\"\n",
        ),
        (
            "ExecStart=/usr/bin/kubelet \\\n  --a \\\n  --redirect-container-streaming \\\n  --b\n",
            "ExecStart=/usr/bin/kubelet \\\n  --a \\\n  --b\n",
        ),
        (
            "ExecStart=/usr/bin/kubelet \\\n  --a \\\n  --redirect-container-streaming\nRestart=always\n",
            "ExecStart=/usr/bin/kubelet \\\n  --a\nRestart=always\n",
        ),
        // A comment among continued lines stays.
        (
            "ExecStart=/usr/bin/kubelet \\\n  # old\n  --redirect-container-streaming \\\n  --b\n",
            "ExecStart=/usr/bin/kubelet \\\n  # old\n  --b\n",
        ),
        // Other settings may speak of it.
        (
            "Description=without --redirect-container-streaming\n",
            "Description=without --redirect-container-streaming\n",
        ),
        ("# --redirect-container-streaming \\\n", "# --redirect-container-streaming \\\n"),
        ("", ""),
    ] {
        let (text, expected) = (kubeadm(before), kubeadm(after));
        assert_eq!(removed(&text).as_deref(), Ok(&*expected), "{before}");
        assert_eq!(remove_flag(&expected, FLAG), Ok(Edited::Unchanged), "{after}");
        let (text, expected) = (text.replace('\n', "\r\n"), expected.replace('\n', "\r\n"));
        assert_eq!(removed(&text).as_deref(), Ok(&*expected), "{before}, CRLF");
    }
}

#[test]
fn what_is_not_certain_is_refused() {
    for (line, reason) in [
        ("ExecStart=/bin/sh -c 'exec kubelet --redirect-container-streaming --b'\n", "Mention"),
        ("ExecStartPre=/bin/sh -c 'echo A=--redirect-container-streaming > /run/env'\n", "Mention"),
        ("Environment=--redirect-container-streaming\n", "Mention"),
        ("Environment=A=x,redirect-container-streaming\n", "Mention"),
        ("ExecStart=/usr/bin/kubelet --redirect-container-streaming false\n", "SeparateValue"),
        ("ExecStart=/usr/bin/kubelet \"--redirect-container-streaming\n", "Style"),
        ("ExecStart=/usr/bin/kubelet --a \\\n  # why\n  --redirect-container-streaming\n", "Style"),
    ] {
        assert_eq!(removed(&kubeadm(line)), Err(reason), "{line}");
    }
}

fn words_of(text: &str) -> Vec<(String, Vec<String>)> {
    let words = |run: &Run| run.words.all.iter().map(Word::text).collect();
    runs(text).iter().map(|run| (run.name.clone(), words(run))).collect()
}

proptest! {
    #[test]
    fn only_the_flag_goes(
        words in prop::collection::vec(
            (
                select(vec![
                    "--v=2", "--redirect-container-streaming", "\"--a b\"", "$EXTRA",
                    "'--redirect-container-streaming=true'", "--c=\\x20",
                ]),
                select(vec![" ", " \\\n  ", "  ", " \\\n# --redirect-container-streaming\n "]),
            ),
            0..7,
        ),
        start in select(vec!["ExecStart=/usr/bin/kubelet ", "Environment=A=", "Environment= 'A=b' "]),
        crlf in any::<bool>(),
    ) {
        let words: String = words.into_iter().flat_map(|(word, gap)| [word, gap]).collect();
        let text = kubeadm(&format!("{start}{words}\n"));
        let text = if crlf { text.replace('\n', "\r\n") } else { text };
        let Ok(edited) = remove_flag(&text, FLAG) else { return Ok(()) };
        let new = match edited {
            Edited::Unchanged => text.clone(),
            Edited::Changed(new) => new,
        };
        let rest: Vec<_> = words_of(&text)
            .into_iter()
            .map(|(name, words)| {
                let rest = words.into_iter().filter(|word| !word.contains(FLAG));
                (name, rest.collect::<Vec<_>>())
            })
            .collect();
        prop_assert_eq!(rest, words_of(&new));
        prop_assert_eq!(remove_flag(&new, FLAG), Ok(Edited::Unchanged));
        let comments = |text: &str| text.lines().filter(|line| line.starts_with('#')).count();
        prop_assert_eq!(comments(&text), comments(&new));
    }
}
