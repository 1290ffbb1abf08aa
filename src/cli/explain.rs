//! Why a command failed, for people: what was attempted, at which cluster, and why it failed. Where a right
//! is missing, who has it and how to get it.

use super::{Error, connect::Place};
use crate::kubernetes::failure::{Failure, chain};

/// The chart's ClusterRole with the rights of `plan` and `status`.
const READER: &str = "sluice-reader";

/// The user name of a ServiceAccount begins so.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// What is printed behind `error: `. Some libraries put their cause into their own words already; once is
/// enough.
pub fn explain(error: &Error) -> String {
    let (place, error): (_, &Error) = match error {
        Error::At { place, source } => (Some(place), source),
        other => (None, other),
    };
    let mut text = String::new();
    for cause in chain(error) {
        let failure = Failure::among(cause);
        let words = match &failure {
            Some(failure) => told(failure, place),
            None => cause.to_string(),
        };
        if !text.contains(&words) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&words);
        }
        if let Some(Failure::Forbidden { who, .. }) = &failure {
            text.push_str(&format!("\nhint: {}", how_to_get_rights(who.as_deref())));
        }
        // What follows says the same in the words of a library.
        if failure.is_some() {
            break;
        }
    }
    text
}

fn told(failure: &Failure, place: Option<&Place>) -> String {
    let Some(place) = place else { return failure.to_string() };
    match failure {
        Failure::Forbidden { sentence, .. } => sentence.clone(),
        Failure::Refused(said) => format!("{place} answered: {said}"),
        Failure::Silent => match place.patience {
            Some(patience) => format!(
                "{place} did not answer within {patience:?}: look at the server's address, or give it longer \
                 with --request-timeout"
            ),
            None => format!("{place} did not answer"),
        },
        Failure::Unreachable(why) => format!("{place} cannot be reached: {why}"),
        Failure::Other(why) => format!("{place}: {why}"),
    }
}

/// Which role has the rights of the commands that only read, and how somebody gets it.
pub fn how_to_get_rights(who: Option<&str>) -> String {
    let subject = match who {
        None => "--user=NAME".to_owned(),
        Some(who) => match who.strip_prefix(SERVICE_ACCOUNT) {
            Some(account) => format!("--serviceaccount={account}"),
            None => format!("--user={}", quoted(who)),
        },
    };
    format!(
        "the chart's ClusterRole {READER} has the rights of plan and status, and check wants the Role \
         sluice-canary of the canaries' namespace besides: kubectl create clusterrolebinding {READER} \
         --clusterrole={READER} {subject}"
    )
}

/// As a shell takes it for one word.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:@/".contains(c);
    if text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::{io, time::Duration};

    use kube::core::Status;

    use super::*;
    use crate::cli::{check, status};

    fn at(error: Error) -> String {
        let place = Place {
            server: "https://10.0.0.1:6443".to_owned(),
            context: Some("production".to_owned()),
            patience: Some(Duration::from_secs(10)),
        };
        explain(&Error::At { place, source: Box::new(error) })
    }

    fn nodes(error: kube::Error) -> Error {
        Error::Check(check::Error::Nodes(Box::new(error)))
    }

    #[test]
    fn a_missing_right_is_said_with_the_role_that_has_it() {
        let refused = |who: &str| {
            let message = format!(
                "nodes is forbidden: User \"{who}\" cannot list resource \"nodes\" in API group \"\" at the cluster scope"
            );
            Status { code: 403, ..Status::failure(&message, "Forbidden") }.boxed()
        };
        for (who, subject) in [
            ("jane@example.com", "--user=jane@example.com"),
            ("Jane Doe", "--user='Jane Doe'"),
            ("system:serviceaccount:ci:plan", "--serviceaccount=ci:plan"),
        ] {
            let text = at(nodes(kube::Error::Api(refused(who))));
            let expected = format!(
                "cannot read the cluster's nodes: nodes is forbidden: User \"{who}\" cannot list resource \
                 \"nodes\" in API group \"\" at the cluster scope\nhint: the chart's ClusterRole sluice-reader \
                 has the rights of plan and status, and check wants the Role sluice-canary of the \
                 canaries' namespace besides: kubectl create clusterrolebinding sluice-reader \
                 --clusterrole=sluice-reader {subject}"
            );
            assert_eq!(text, expected);
        }
        // The same behind a watch.
        let watched =
            kube::runtime::watcher::Error::InitialListFailed(kube::Error::Api(refused("a")));
        let text = at(Error::Status(status::Error::Watch(Box::new(watched))));
        assert!(text.starts_with("cannot watch StreamingPolicies: nodes is forbidden"), "{text}");
        assert!(!text.contains("ApiError") && text.contains("--user=a"), "{text}");
    }

    #[test]
    fn a_connection_that_fails_says_where_to() {
        let io = |kind| kube::Error::Service(Box::new(io::Error::new(kind, "it was so")));
        for (error, expected) in [
            (
                io(io::ErrorKind::ConnectionRefused),
                "https://10.0.0.1:6443 (context production) cannot be reached: it was so",
            ),
            (
                io(io::ErrorKind::TimedOut),
                "https://10.0.0.1:6443 (context production) did not answer within 10s: look at the \
                 server's address, or give it longer with --request-timeout",
            ),
            (
                kube::Error::Api(Status { code: 500, ..Status::failure("no etcd", "x") }.boxed()),
                "https://10.0.0.1:6443 (context production) answered: no etcd",
            ),
        ] {
            assert_eq!(at(nodes(error)), format!("cannot read the cluster's nodes: {expected}"));
        }
    }

    #[test]
    fn other_failures_are_told_once() {
        let source = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let error = Error::Runtime(source);
        assert_eq!(explain(&error), "cannot start the runtime: no such file");
    }
}
