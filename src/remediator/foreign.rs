//! What is found in the place of a file that was changed, where it is neither the change nor the
//! original. Pure.

use serde_json::Value;

use crate::{decision::migration::STREAMING_REDIRECTS, kubernetes::feature_gates::FeatureGates};

/// Whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// It says what was written, in other words or with another gate beside ours: somebody has edited it.
    Ours,
    /// Nothing can run from it.
    Nobodys,
    /// It says something else, as after a kubeadm upgrade. To put the original back would undo that.
    Theirs,
}

/// Whose the content of the file at `path` is, in which `written` was put.
pub fn whose(path: &str, written: &[u8], found: &[u8]) -> Whose {
    let (Ok(written), Ok(found)) = (std::str::from_utf8(written), std::str::from_utf8(found))
    else {
        return Whose::Theirs;
    };
    if [".yaml", ".yml", ".json"].iter().any(|end| path.ends_with(end)) {
        manifest(written, found)
    } else {
        lines(written, found)
    }
}

fn manifest(written: &str, found: &str) -> Whose {
    let read = |text: &str| serde_saphyr::from_str::<Value>(text);
    match (read(written), read(found)) {
        (Ok(mut written), Ok(mut found)) => {
            let ours = gate(&written) == gate(&found);
            // Who adds another gate to the argument in which ours stands has not written the rest.
            let others = [take_gates(&mut written), take_gates(&mut found)];
            let has_containers = others[1].is_some_and(|containers| containers > 0);
            match (ours && written == found, has_containers) {
                (true, _) => Whose::Ours,
                (false, true) => Whose::Theirs,
                (false, false) => Whose::Nobodys,
            }
        }
        (Err(_), Ok(_)) => Whose::Theirs,
        // What cannot be read here may still be read by the kubelet.
        (_, Err(_)) if found.contains("containers") => Whose::Theirs,
        (_, Err(_)) => Whose::Nobodys,
    }
}

/// What the containers' arguments say of the gate.
fn gate(manifest: &Value) -> Option<bool> {
    let containers = manifest.pointer("/spec/containers").and_then(Value::as_array);
    let words = containers.into_iter().flatten().flat_map(|container| {
        let lists = ["command", "args"].map(|list| container[list].as_array());
        lists.into_iter().flatten().flatten().filter_map(Value::as_str)
    });
    FeatureGates::from_args(words).get(STREAMING_REDIRECTS.gate)
}

/// Takes the argument with the gates away; tells how many containers there are.
fn take_gates(manifest: &mut Value) -> Option<usize> {
    let containers = manifest.pointer_mut("/spec/containers").and_then(Value::as_array_mut)?;
    for container in containers.iter_mut() {
        for list in ["command", "args"] {
            if let Some(words) = container.get_mut(list).and_then(Value::as_array_mut) {
                let is_gates =
                    |word: &Value| word.as_str().is_some_and(|w| w.starts_with("--feature-gates="));
                words.retain(|word| !is_gates(word));
            }
        }
    }
    Some(containers.len())
}

/// Units and environment files.
fn lines(written: &str, found: &str) -> Whose {
    fn said(text: &str) -> impl Iterator<Item = &str> {
        let lines = text.lines().map(str::trim);
        lines.filter(|line| !line.is_empty() && !line.starts_with(['#', ';']))
    }
    if said(written).eq(said(found)) {
        Whose::Ours
    } else if said(found).next().is_none() {
        Whose::Nobodys
    } else {
        Whose::Theirs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remediator::test_support::ORIGINAL;

    #[test]
    fn every_kind() {
        let unit = "[Service]\nExecStart=/usr/bin/kubelet\n";
        let saved = format!("# saved\n{}", ORIGINAL.replace(" kube-system", " \"kube-system\""));
        let upgraded = ORIGINAL.replace("v1.20.2", "v1.21.14");
        let gates = |gates: &str| {
            let argument = format!("    - --feature-gates={gates}\n    image:");
            ORIGINAL.replace("    image:", &argument)
        };
        let off = gates("StreamingProxyRedirects=false");
        let typo = gates("StreamingProxyRedirects=false,NoSuchGate=true");
        let on = gates("StreamingProxyRedirects=true");
        let carried = off.replace("v1.20.2", "v1.21.14");
        let unread = format!("{upgraded}\tx: [\n");
        for (path, written, found, expected) in [
            ("/m/kube-apiserver.yaml", ORIGINAL, &*saved, Whose::Ours),
            ("/m/kube-apiserver.yaml", ORIGINAL, &*upgraded, Whose::Theirs),
            ("/m/kube-apiserver.yaml", ORIGINAL, &*unread, Whose::Theirs),
            ("/m/kube-apiserver.yaml", &*off, &*typo, Whose::Ours),
            ("/m/kube-apiserver.yaml", &*off, &*on, Whose::Theirs),
            ("/m/kube-apiserver.yaml", &*off, &*carried, Whose::Theirs),
            ("/m/kube-apiserver.yaml", &*off, ORIGINAL, Whose::Theirs),
            ("/m/kube-apiserver.yaml", ORIGINAL, "theirs", Whose::Nobodys),
            ("/m/kube-apiserver.yaml", ORIGINAL, "", Whose::Nobodys),
            ("/m/kube-apiserver.yaml", ORIGINAL, "kind: Pod\n", Whose::Nobodys),
            ("/m/kube-apiserver.yaml", ORIGINAL, "[", Whose::Nobodys),
            ("/e/kubelet.service", unit, "[Service]\n\nExecStart=/usr/bin/kubelet \n", Whose::Ours),
            ("/e/kubelet.service", unit, "[Service]\nExecStart=/opt/kubelet\n", Whose::Theirs),
            ("/e/kubelet.service", unit, "# nothing\n", Whose::Nobodys),
        ] {
            let is = whose(path, written.as_bytes(), found.as_bytes());
            assert_eq!(is, expected, "{found}");
        }
        assert_eq!(whose("/e/kubelet.service", b"a", b"\xff"), Whose::Theirs);
    }
}
