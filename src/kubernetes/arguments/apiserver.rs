//! The command line of a kube-apiserver's container: which container it is, where the apiserver's own
//! arguments begin, and what they are.

pub use super::FEATURE_GATES;
use super::{Known, Part};

/// The program, and the container in which kubeadm and its relatives start it.
pub const PROGRAM: &str = "kube-apiserver";

/// The flags of apiservers from 1.6 on that are booleans.
pub(super) const KNOWN: Known = Known {
    booleans: &[
        "add-dir-header",
        "aggregator-reject-forwarding-redirect",
        "allow-privileged",
        "alsologtostderr",
        "anonymous-auth",
        "audit-log-batch-throttle-enable",
        "audit-log-compress",
        "audit-log-truncate-enabled",
        "audit-webhook-batch-throttle-enable",
        "audit-webhook-truncate-enabled",
        "authentication-skip-lookup",
        "authentication-tolerate-lookup-failure",
        "contention-profiling",
        "disable-http2-serving",
        "enable-aggregator-routing",
        "enable-bootstrap-token-auth",
        "enable-garbage-collector",
        "enable-logs-handler",
        "enable-priority-and-fairness",
        "enable-swagger-ui",
        "encryption-provider-config-automatic-reload",
        "experimental-bootstrap-token-auth",
        "experimental-logging-sanitization",
        "help",
        "insecure-allow-any-token",
        "kubelet-https",
        "log-json-split-stream",
        "log-text-split-stream",
        "logtostderr",
        "one-output",
        "permit-address-sharing",
        "permit-port-sharing",
        "profiling",
        "repair-malformed-updates",
        "service-account-extend-token-expiration",
        "service-account-lookup",
        "shutdown-send-retry-after",
        "skip-headers",
        "skip-log-headers",
        "version",
        "watch-cache",
    ],
    valued: &["advertise-address", FEATURE_GATES],
};

/// Programs that start the one behind their own options with all the words behind it, and how many
/// words of their own they take beside options.
const WRAPPERS: [(&str, usize); 11] = [
    ("go-runner", 0),
    ("env", 0),
    ("tini", 0),
    ("dumb-init", 0),
    ("catatonit", 0),
    ("nice", 0),
    ("ionice", 0),
    ("nohup", 0),
    ("su-exec", 1),
    ("gosu", 1),
    ("flock", 1),
];

/// The options of a wrapper whose value is the next word. It may end with the program's name, as the
/// path of a log does.
const WITH_VALUE: [&str; 2] = ["-log-file", "--log-file"];

/// The words in which a container starts its program: its command, and behind it its arguments.
pub type Words<'a> = Vec<&'a str>;

/// Which of a pod's containers is an apiserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// None.
    No,
    /// This one, by its index.
    At(usize),
    /// One may be, or more than one is.
    Unclear,
}

/// Finds the apiserver among the containers of a pod, by their names and words.
pub fn container(all: &[(&str, Words<'_>)]) -> Container {
    let is = |(_, (name, words)): &(usize, &(&str, Words<'_>))| {
        *name == PROGRAM || first_argument(words).is_some()
    };
    let mut found = all.iter().enumerate().filter(is).map(|(index, _)| index);
    match (found.next(), found.next()) {
        (Some(only), None) => Container::At(only),
        (Some(_), Some(_)) => Container::Unclear,
        (None, _) if all.iter().any(|(_, words)| words.iter().any(|word| mentions(word))) => {
            Container::Unclear
        }
        (None, _) => Container::No,
    }
}

/// Whether a script, or a word of a wrapper that is not known, names the program.
fn mentions(word: &str) -> bool {
    let part_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !word.starts_with('-')
        && word.match_indices(PROGRAM).any(|(at, name)| {
            let before = word[..at].chars().next_back();
            let after = word[at + name.len()..].chars().next();
            !before.is_some_and(part_of_name)
                && !after.is_some_and(|after| part_of_name(after) || after == '/')
        })
}

/// Where the apiserver's own arguments begin; `None` where a shell or something else that is not
/// known stands before them, which may add some.
///
/// Behind `sh -c SCRIPT` come the script's `$0` and its arguments: what the program gets, only the
/// script says.
pub fn first_argument(words: &[&str]) -> Option<usize> {
    let mut at = 0;
    loop {
        match base(words.get(at)?) {
            PROGRAM => return Some(at + 1),
            // Up to 1.18; the long name and the short one.
            "hyperkube" => {
                let named = matches!(*words.get(at + 1)?, PROGRAM | "apiserver");
                return named.then_some(at + 2);
            }
            wrapper => {
                let (_, own) = WRAPPERS.iter().find(|(name, _)| *name == wrapper)?;
                at = behind_wrapper(words, at + 1, *own)?;
            }
        }
    }
}

/// The word behind a wrapper's options and its own words.
fn behind_wrapper(words: &[&str], mut at: usize, mut own: usize) -> Option<usize> {
    loop {
        let word = words.get(at)?;
        let number = word.starts_with(|c: char| c.is_ascii_digit());
        if WITH_VALUE.contains(word) {
            at += 2;
        } else if word.starts_with('-') || word.contains('=') || number {
            at += 1;
        } else if own > 0 {
            (at, own) = (at + 1, own - 1);
        } else {
            return Some(at);
        }
    }
}

fn base(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// The parts of the apiserver's own arguments.
pub fn parts<'a>(args: &[&'a str]) -> Vec<Part<'a>> {
    super::parts(args, KNOWN)
}

/// The value of a flag with a text among the apiserver's own arguments; the last one wins.
pub fn text<'a>(args: &[&'a str], flag: &str) -> Option<&'a str> {
    super::text(args, KNOWN, flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Words<'_> {
        line.split(' ').collect()
    }

    #[test]
    fn where_the_arguments_begin() {
        for (line, expected) in [
            ("kube-apiserver --v=2", Some(1)),
            ("/usr/local/bin/kube-apiserver", Some(1)),
            ("/hyperkube kube-apiserver --v=2", Some(2)),
            ("/hyperkube apiserver --v=2", Some(2)),
            ("/hyperkube controller-manager kube-apiserver", None),
            ("/hyperkube", None),
            ("/go-runner --log-file=/l --also-stdout /usr/local/bin/kube-apiserver --v=2", Some(4)),
            ("/go-runner -- kube-apiserver", Some(3)),
            ("/go-runner --log-file /var/log/kube-apiserver kube-apiserver", Some(4)),
            ("/go-runner --log-file=/var/log/kube-apiserver kube-apiserver", Some(3)),
            ("/go-runner kube-scheduler kube-apiserver", None),
            ("/usr/bin/env A=b tini -g -- kube-apiserver", Some(6)),
            ("nice -n 5 kube-apiserver", Some(4)),
            ("flock /var/lock/kube-apiserver kube-apiserver", Some(3)),
            ("tini /hyperkube apiserver", Some(3)),
            ("sh -c exec\u{a0}kube-apiserver kube-apiserver --v=2", None),
            ("tini -- sh -c x kube-apiserver", None),
            ("tini -g /start.py kube-apiserver", None),
            ("/start kube-apiserver --v=2", None),
            ("$(PROGRAM) kube-apiserver", None),
            ("--v=2", None),
        ] {
            assert_eq!(first_argument(&words(line)), expected, "{line}");
        }
        assert_eq!(first_argument(&[]), None);
    }

    #[test]
    fn which_container_it_is() {
        use Container::{At, No, Unclear};
        for (containers, expected) in [
            (&[("etcd", "etcd --v=2")][..], No),
            (&[("kube-apiserver", "/start --v=2")], At(0)),
            (&[("api", "kube-apiserver --v=2")], At(0)),
            (&[("healthcheck", "/kube-apiserver-healthcheck"), ("x", "kube-apiserver")], At(1)),
            (&[("kube-apiserver", "kube-apiserver"), ("other", "kube-apiserver")], Unclear),
            (&[("api", "sh -c exec\u{a0}kube-apiserver")], Unclear),
            (&[("api", "/wrapper kube-apiserver")], Unclear),
            (&[("logs", "tail -F /var/log/kube-apiserver.log")], No),
            (&[("logs", "tail -F /var/log/kube-apiserver/audit")], No),
            (&[("proxy", "/proxy --name=kube-apiserver")], No),
        ] {
            let read: Vec<(&str, Words<'_>)> =
                containers.iter().map(|(name, line)| (*name, words(line))).collect();
            assert_eq!(container(&read), expected, "{containers:?}");
        }
    }
}
