//! Tables of environment files as kubeadm, packages and people write them, and random ones.

use proptest::{prelude::*, sample::select};

use super::*;

const FLAG: &str = "redirect-container-streaming";

fn removed(text: &str) -> Result<String, &'static str> {
    match remove_flag(text, FLAG) {
        Ok(Edited::Unchanged) => Ok(text.to_owned()),
        Ok(Edited::Changed(new)) => {
            assert_ne!(new, text);
            Ok(new)
        }
        Err(error) => {
            assert!(error.to_string().starts_with("the environment file, line "), "{error}");
            Err(error.reason())
        }
    }
}

#[test]
fn variables_and_their_words() {
    for (text, expected) in [
        ("", &[][..]),
        ("A=\nB = --x --y  \n", &["--x", "--y"]),
        ("# A=--x\n; B=--x\nC\n  D=--y", &["--y"]),
        ("A=\"--x '--y z'\" # no comment\n", &["--x", "--y z#", "no", "comment"]),
        ("A='--x' '--y'\n", &["--x--y"]),
        ("A=--x \"--y z\"\n", &["--x", "--y z"]),
        ("A=--x \\\n  --y\nB=z\n", &["--x", "--y", "z"]),
        ("A=\"--x \\\n  --y\"\n", &["--x", "--y"]),
        ("A=\"--x\n--y\"\n", &["--x", "--y"]),
        ("A=\"--x=\\$HOME \\\"a b\\\" c\\d\"\n", &["--x=$HOME", "a b", "cd"]),
        ("# ends so \\\nA=--x\n", &["--x"]),
        ("A=\"--x\nB=--y\n", &["--x", "B=--y"]),
        ("A=--x\r\nB=--y\r\n", &["--x", "--y"]),
    ] {
        assert_eq!(words(text), expected, "{text}");
    }
}

#[test]
fn the_flag_goes_and_everything_else_stays() {
    for (before, after) in [
        // kubeadm-flags.env of kubeadm 1.18.
        (
            "KUBELET_KUBEADM_ARGS=\"--cgroup-driver=systemd --network-plugin=cni --pod-infra-container-image=k8s.gcr.io/pause:3.2 --redirect-container-streaming=true\"\n",
            "KUBELET_KUBEADM_ARGS=\"--cgroup-driver=systemd --network-plugin=cni --pod-infra-container-image=k8s.gcr.io/pause:3.2\"\n",
        ),
        ("A=\"--redirect-container-streaming --v=2\"\n", "A=\"--v=2\"\n"),
        ("A=\"--a  --redirect-container-streaming   --v=2\"\n", "A=\"--a   --v=2\"\n"),
        ("KUBELET_EXTRA_ARGS=--redirect-container-streaming=true\n", "KUBELET_EXTRA_ARGS=\n"),
        ("KUBELET_EXTRA_ARGS=\"--redirect-container-streaming\"", "KUBELET_EXTRA_ARGS=\"\""),
        ("A='--redirect_container_streaming=0'\n", "A=''\n"),
        ("A=\"--a '--redirect-container-streaming=true' --b\"\n", "A=\"--a --b\"\n"),
        ("A=--a --redirect-container-streaming=\"true\" --b\n", "A=--a --b\n"),
        // Each of several.
        (
            "A=\"--redirect-container-streaming --redirect-container-streaming=false --a\"\nB=--b --redirect-container-streaming --redirect-container-streaming\n",
            "A=\"--a\"\nB=--b\n",
        ),
        // Over several lines.
        ("A=\"--a \\\n  --redirect-container-streaming \\\n  --b\"\n", "A=\"--a \\\n  --b\"\n"),
        ("A=--a \\\n  --b \\\n  --redirect-container-streaming\n", "A=--a \\\n  --b\n"),
        ("A=\"\\\n  --redirect-container-streaming \\\n  --b\"\n", "A=\"\\\n  --b\"\n"),
        ("A=\"--redirect-container-streaming \\\n  --b\"\n", "A=\"--b\"\n"),
        ("A=\"--a\r\n  --redirect-container-streaming\"\r\nB=b\r\n", "A=\"--a\"\r\nB=b\r\n"),
        // Comments stay.
        (
            "# Käse: --redirect-container-streaming\n\nA=--redirect-container-streaming\n; end\n",
            "# Käse: --redirect-container-streaming\n\nA=\n; end\n",
        ),
        // It is not there.
        ("A=--redirect-container\n", "A=--redirect-container\n"),
        ("# A=--redirect-container-streaming\n", "# A=--redirect-container-streaming\n"),
        ("A='", "A='"),
        ("", ""),
    ] {
        assert_eq!(removed(before).as_deref(), Ok(after), "{before}");
        assert_eq!(remove_flag(after, FLAG), Ok(Edited::Unchanged), "{after}");
    }
}

#[test]
fn what_is_not_certain_is_refused() {
    for (text, reason) in [
        ("A=--redirect-container-streaming true\n", "SeparateValue"),
        ("A=\"--redirect-container-streaming \\\n false\"\n", "SeparateValue"),
        ("A=-redirect-container-streaming\n", "Mention"),
        ("A=--kubelet-arg=redirect-container-streaming=true\n", "Mention"),
        ("A='--redirect-container-streaming'--b\n", "Mention"),
        ("A=-- --redirect-container-streaming\n", "Mention"),
        ("A=\"--redirect-container-streaming\n", "Style"),
        ("A=\"--a '--redirect-container-streaming\"\n", "Style"),
        // The quotes would become those of the value.
        ("A=--redirect-container-streaming \"--x=a b\"\n", "Unverified"),
    ] {
        assert_eq!(removed(text), Err(reason), "{text}");
    }
    let refused = remove_flag("# c\nA=--redirect-container-streaming 1\n", FLAG).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the environment file, line 2: the flag takes no separate value, but true or false \
         follows; write --flag=VALUE"
    );
}

fn line() -> impl Strategy<Value = String> {
    let word = select(vec![
        "--v=2",
        "--node-labels=a=b,c=d",
        "--redirect-container-streaming",
        "--redirect-container-streaming=true",
        "--redirect_container_streaming=false",
        "--x",
        "'--y z'",
        "\\",
    ]);
    let gap = select(vec![" ", "  ", " \\\n  ", "\t"]);
    let words = prop::collection::vec((word, gap), 0..6);
    let quote = select(vec!["", "\"", "'"]);
    let around = select(vec!["", "# --redirect-container-streaming\n", "; \\\n", "\n"]);
    (words, quote, around).prop_map(|(words, quote, around)| {
        let words: String = words.into_iter().flat_map(|(word, gap)| [word, gap]).collect();
        format!("{around}KUBELET_EXTRA_ARGS={quote}{words}{quote}\n")
    })
}

proptest! {
    #[test]
    fn only_the_flag_goes(
        lines in prop::collection::vec(line(), 0..4),
        crlf in any::<bool>(),
    ) {
        let text = lines.concat();
        let text = if crlf { text.replace('\n', "\r\n") } else { text };
        // What cannot be edited is refused, and that is all.
        let Ok(edited) = remove_flag(&text, FLAG) else { return Ok(()) };
        let new = match edited {
            Edited::Unchanged => text.clone(),
            Edited::Changed(new) => new,
        };
        let is_flag = |word: &String| word.replace('_', "-").contains(FLAG);
        prop_assert!(!words(&new).iter().any(is_flag), "{}", new);
        let mut rest = words(&text);
        rest.retain(|word| !is_flag(word));
        prop_assert_eq!(rest, words(&new));
        prop_assert_eq!(remove_flag(&new, FLAG), Ok(Edited::Unchanged));
        let comments = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| line.starts_with(['#', ';']));
            lines.map(str::to_owned).collect()
        };
        prop_assert_eq!(comments(&text), comments(&new));
    }

    #[test]
    fn any_text_is_read(text in "[-a='\"\\\\# \n\r;]{0,40}") {
        let _ = remove_flag(&text, "a");
    }
}
