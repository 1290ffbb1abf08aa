mod crash;

use std::{
    fs,
    sync::{Arc, Mutex},
};

use super::*;
use crate::{
    node::systemd::Files,
    remediator::{
        cluster_reader::Readiness,
        executor::Executor,
        test_support::{
            Answers, NOTHING_WANTED, Node, advance, at, change, confirms, fresh, now, settle,
            timing, wants,
        },
    },
};

const KIND: ChangeKind = ChangeKind::KubeletFlag;
const UNIT: &str = "/lib/systemd/system/kubelet.service";
const DROP_IN: &str = "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf";
const KUBEADM: &str = "/var/lib/kubelet/kubeadm-flags.env";
const DEFAULT: &str = "/etc/default/kubelet";

const KUBEADM_TEXT: &str =
    "KUBELET_KUBEADM_ARGS=\"--network-plugin=cni --redirect-container-streaming=true\"\n";
const DROP_IN_TEXT: &str = "\
[Service]
Environment=\"KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml\"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
";

/// The node's systemd, whose kubelet starts as the files say.
#[derive(Clone)]
struct FakeSystemd(Arc<Mutex<State>>);

struct State {
    host: Host,
    answers: Answers,
    /// What it was asked for.
    calls: Vec<&'static str>,
    /// The unit and its drop-ins as they were read last.
    loaded: String,
    /// The number of the kubelet's process.
    pid: u32,
    reachable: bool,
    /// A kubelet without the flag does not become ready.
    needs_flag: bool,
    /// How the restart ends.
    result: &'static str,
    /// The flag comes from somewhere else, too.
    elsewhere: bool,
}

impl FakeSystemd {
    fn edit<T>(&self, edit: impl FnOnce(&mut State) -> T) -> T {
        edit(&mut self.0.lock().unwrap())
    }

    fn calls(&self) -> Vec<&'static str> {
        self.edit(|state| std::mem::take(&mut state.calls))
    }
}

impl State {
    fn check(&self) -> Result<(), systemd::Error> {
        let unreachable = || systemd::Error::Bus(zbus::Error::InvalidReply);
        if self.reachable { Ok(()) } else { Err(unreachable()) }
    }

    fn load(&mut self) {
        let read = |path: &str| fs::read_to_string(self.host.path(path)).unwrap_or_default();
        self.loaded = [UNIT, DROP_IN].map(read).concat();
    }

    fn start(&mut self) {
        let read = |path: &str| fs::read_to_string(self.host.path(path)).unwrap_or_default();
        let text = [KUBEADM, DEFAULT].map(read).concat() + &self.loaded;
        let flag = text.contains("--redirect-container-streaming") || self.elsewhere;
        let proc = self.host.proc();
        let _ = fs::remove_dir_all(proc.join(self.pid.to_string()));
        self.pid += 1;
        let folder = proc.join(self.pid.to_string());
        fs::create_dir_all(&folder).unwrap();
        let cmdline =
            if flag { "kubelet\0--redirect-container-streaming=true\0" } else { "kubelet\0" };
        fs::write(folder.join("cmdline"), cmdline).unwrap();
        fs::write(folder.join("comm"), "kubelet\n").unwrap();
        fs::write(folder.join("status"), "NSpid:\t7\n").unwrap();
        fs::write(folder.join("stat"), format!("7 (kubelet) S {}5 0", "0 ".repeat(18))).unwrap();
        let ready = flag || !self.needs_flag;
        let readiness = Readiness { ready, heartbeat: Some(now()) };
        self.answers.edit(|known| known.readiness = Some(readiness));
    }
}

impl Systemd for FakeSystemd {
    async fn files(&self) -> Result<Files, systemd::Error> {
        self.edit(|state| {
            state.check()?;
            let paths = |paths: [&str; 2]| paths.map(str::to_owned).to_vec();
            Ok(Files { units: paths([UNIT, DROP_IN]), environment: paths([KUBEADM, DEFAULT]) })
        })
    }

    async fn reload(&self) -> Result<(), systemd::Error> {
        self.edit(|state| {
            state.check()?;
            state.calls.push("reload");
            state.load();
            Ok(())
        })
    }

    async fn restart(&self) -> Result<(), systemd::Error> {
        self.edit(|state| {
            state.check()?;
            state.calls.push("restart");
            if state.result != "done" {
                return Err(systemd::Error::Job(state.result.to_owned()));
            }
            state.start();
            Ok(())
        })
    }
}

/// A node whose kubelet was started with the flag from kubeadm's file.
fn node() -> (Node, FakeSystemd) {
    node_with(&[(KUBEADM, KUBEADM_TEXT), (DROP_IN, DROP_IN_TEXT)])
}

fn node_with(files: &[(&str, &str)]) -> (Node, FakeSystemd) {
    fresh();
    let node = Node::new();
    node.write(UNIT, "[Service]\nExecStart=/usr/bin/kubelet\n");
    for (path, text) in files {
        node.write(path, text);
    }
    let mut state = State {
        host: node.host(),
        answers: node.answers.clone(),
        calls: Vec::new(),
        loaded: String::new(),
        pid: 700,
        reachable: true,
        needs_flag: false,
        result: "done",
        elsewhere: false,
    };
    state.load();
    state.start();
    advance(10);
    (node, FakeSystemd(Arc::new(Mutex::new(state))))
}

fn remediator(node: &Node, systemd: &FakeSystemd) -> Executor<KubeletFlag<FakeSystemd>, Answers> {
    let handler = KubeletFlag::new(node.host(), systemd.clone());
    let (answers, told) = (node.answers.clone(), node.told.clone());
    Executor::new(node.store(KIND), handler, answers, "cp1".to_owned(), timing(), told)
}

fn runs_with_flag(node: &Node) -> bool {
    let kubelet = process::kubelet(&node.host().proc()).unwrap();
    says(&kubelet) != FlagValue::Absent
}

#[tokio::test]
async fn the_flag_goes_and_the_kubelet_comes_back_without_it() {
    let (node, systemd) = node();
    let change = change("a", KIND);
    let mut remediator = remediator(&node, &systemd);
    settle(&mut remediator, &wants(&change)).await;
    assert_eq!(node.said(), "Applied Applied");
    assert_eq!(node.read(KUBEADM), "KUBELET_KUBEADM_ARGS=\"--network-plugin=cni\"\n");
    assert_eq!(node.read(DROP_IN), DROP_IN_TEXT);
    assert!(!runs_with_flag(&node));
    // No unit was changed.
    assert_eq!(systemd.calls(), ["restart"]);
    settle(&mut remediator, &confirms(&change)).await;
    assert_eq!(node.said(), "Confirmed Confirmed");
    assert_eq!(node.names_beside(KUBEADM), ["kubeadm-flags.env"]);
    advance(1_000);
    settle(&mut remediator, &NOTHING_WANTED).await;
    assert_eq!((node.said().as_str(), systemd.calls().len()), ("Confirmed Confirmed", 0));
}

#[tokio::test]
async fn wherever_it_stands_it_goes() {
    let flagged = DROP_IN_TEXT.replace("$KUBELET_EXTRA_ARGS", "--redirect-container-streaming");
    let (node, systemd) = node_with(&[
        (KUBEADM, KUBEADM_TEXT),
        (DROP_IN, &flagged),
        (DEFAULT, "KUBELET_EXTRA_ARGS=--redirect-container-streaming=false\n"),
    ]);
    let change = change("a", KIND);
    settle(&mut remediator(&node, &systemd), &wants(&change)).await;
    assert_eq!(node.said(), "Applied Applied", "{:?}", node.report());
    assert_eq!(systemd.calls(), ["reload", "restart"]);
    for path in [KUBEADM, DROP_IN, DEFAULT] {
        assert!(!node.read(path).contains("redirect"), "{path}");
    }
    // And all of it comes back.
    settle(&mut remediator(&node, &systemd), &NOTHING_WANTED).await;
    assert_eq!(node.said(), "RolledBack Withdrawn");
    assert_eq!(systemd.calls(), ["reload", "restart"]);
    assert_eq!((node.read(KUBEADM).as_str(), node.read(DROP_IN)), (KUBEADM_TEXT, flagged));
    assert!(runs_with_flag(&node));
}

#[tokio::test]
async fn a_kubelet_that_does_not_become_ready_gets_its_flag_back() {
    let (node, systemd) = node();
    systemd.edit(|state| state.needs_flag = true);
    let change = change("a", KIND);
    let mut executor = remediator(&node, &systemd);
    settle(&mut executor, &wants(&change)).await;
    assert_eq!(node.said(), "Preparing Preparing");
    // It goes on where another process has stopped, and has the kubelet restarted once.
    advance(100);
    settle(&mut remediator(&node, &systemd), &wants(&change)).await;
    assert_eq!(systemd.calls(), ["restart"]);
    advance(80);
    settle(&mut executor, &wants(&change)).await;
    assert_eq!(node.said(), "RolledBack KubeletNotReady");
    assert_eq!(systemd.calls(), ["restart"]);
    assert!(runs_with_flag(&node));
    assert_eq!(node.read(KUBEADM), KUBEADM_TEXT);
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_brings_the_flag_back() {
    let (node, systemd) = node();
    let change = change("a", KIND);
    settle(&mut remediator(&node, &systemd), &wants(&change)).await;
    assert!(!runs_with_flag(&node));
    fs::write(node.state().join("KubeletFlag/journal.json"), "{\"stage\": \"Proving\"}").unwrap();
    settle(&mut remediator(&node, &systemd), &wants(&change)).await;
    assert_eq!(node.said(), "RolledBack JournalUnreadable");
    assert_eq!(node.read(KUBEADM), KUBEADM_TEXT);
    assert!(runs_with_flag(&node));
    assert_eq!(systemd.calls(), ["restart", "restart"]);
}

#[tokio::test]
async fn a_restart_that_fails_is_undone_at_once() {
    let (node, systemd) = node();
    systemd.edit(|state| state.result = "failed");
    let change = change("a", KIND);
    settle(&mut remediator(&node, &systemd), &wants(&change)).await;
    assert_eq!(node.said(), "RolledBack KubeletNotReady");
    let message = node.report().unwrap().message;
    assert!(message.contains("systemd says of the restart: failed"), "{message}");
    assert_eq!(systemd.calls(), ["restart", "restart"]);
    assert_eq!(node.read(KUBEADM), KUBEADM_TEXT);
}

#[tokio::test]
async fn a_flag_that_comes_from_somewhere_else_too_stays() {
    let (node, systemd) = node();
    systemd.edit(|state| state.elsewhere = true);
    settle(&mut remediator(&node, &systemd), &wants(&change("a", KIND))).await;
    assert_eq!(node.said(), "RolledBack FlagStays");
    assert_eq!(node.read(KUBEADM), KUBEADM_TEXT);
}

#[tokio::test]
async fn what_is_not_understood_is_left_alone() {
    type Spoil = fn(&Node, &FakeSystemd);
    // As a wrapper would do it.
    let elsewhere: Spoil = |_, systemd| {
        systemd.edit(|state| {
            state.elsewhere = true;
            state.start();
        });
    };
    let unread: Spoil = |node, systemd| {
        std::os::unix::fs::symlink("/nowhere", node.path(DEFAULT)).unwrap();
        systemd.edit(|state| {
            state.elsewhere = true;
            state.start();
        });
    };
    // systemd reads it all the same.
    let latin: Spoil = |node, _| {
        let unit = b"# Ger\xe4t\n[Service]\nExecStart=/usr/bin/kubelet --redirect-container-streaming=true\n";
        fs::write(node.path(DROP_IN), unit).unwrap();
    };
    let shell = "[Service]\nExecStart=/bin/sh -c 'kubelet --redirect-container-streaming'\n";
    let cases: [(&str, Spoil, &str); 7] = [
        (DROP_IN_TEXT, |_, _| {}, "Applied NothingToDo"),
        (DROP_IN_TEXT, elsewhere, "Refused FlagSourceUnknown"),
        (DROP_IN_TEXT, unread, "Refused FlagSourceUnknown"),
        (
            DROP_IN_TEXT,
            |_, systemd| systemd.edit(|state| state.reachable = false),
            "Refused SystemdUnreachable",
        ),
        (
            DROP_IN_TEXT,
            |node, _| fs::remove_dir_all(node.path("/proc")).unwrap(),
            "Refused KubeletUnknown",
        ),
        (shell, |_, _| {}, "Refused EditRefused"),
        (DROP_IN_TEXT, latin, "Refused EditRefused"),
    ];
    for (drop_in, spoil, expected) in cases {
        let (node, systemd) =
            node_with(&[(KUBEADM, "KUBELET_KUBEADM_ARGS=\n"), (DROP_IN, drop_in)]);
        fs::create_dir_all(node.path(DEFAULT).parent().unwrap()).unwrap();
        spoil(&node, &systemd);
        advance(10);
        settle(&mut remediator(&node, &systemd), &wants(&change("a", KIND))).await;
        assert_eq!(node.said(), expected, "{:?}", node.report());
        assert_eq!(systemd.calls(), [""; 0]);
        // What was not read is named.
        let message = node.report().unwrap().message;
        assert_eq!(
            message.contains("Not read: /etc/default/kubelet"),
            node.path(DEFAULT).is_symlink(),
            "{message}"
        );
    }
}

#[tokio::test]
async fn while_the_apiserver_is_away_no_kubelet_is_restarted() {
    let (node, systemd) = node();
    let change = change("a", KIND);
    let mut executor = remediator(&node, &systemd);
    node.answers.edit(|known| known.readiness = None);
    settle(&mut executor, &wants(&change)).await;
    assert_eq!((node.said().as_str(), systemd.calls().len()), ("Preparing Preparing", 0));
    advance(180);
    settle(&mut executor, &wants(&change)).await;
    // Nobody has started the kubelet with what was written.
    assert_eq!((node.said().as_str(), systemd.calls().len()), ("RolledBack DeadlineExceeded", 0));
    assert_eq!(node.read(KUBEADM), KUBEADM_TEXT);
}

#[tokio::test]
async fn a_heartbeat_of_before_the_restart_proves_nothing() {
    let (node, systemd) = node();
    // Of this very second: it waits for the next.
    node.answers
        .edit(|known| known.readiness = Some(Readiness { ready: true, heartbeat: Some(now()) }));
    let change = change("a", KIND);
    let mut executor = remediator(&node, &systemd);
    settle(&mut executor, &wants(&change)).await;
    assert_eq!(systemd.calls().len(), 0);
    advance(1);
    settle(&mut executor, &wants(&change)).await;
    assert_eq!((node.said().as_str(), systemd.calls().len()), ("Applied Applied", 1));

    let journal = node.journal(KIND).unwrap();
    let mut handler = KubeletFlag::new(node.host(), systemd.clone());
    for (ready, heartbeat, made) in [
        (true, Some(at(10)), false),
        (true, Some(at(11)), true),
        (false, Some(at(12)), false),
        (true, None, false),
    ] {
        node.answers.edit(|known| known.readiness = Some(Readiness { ready, heartbeat }));
        let proof = handler.prove(&journal, &node.answers).await;
        assert_eq!(matches!(proof, Proof::Made(_)), made, "{ready} {heartbeat:?} {proof:?}");
    }
    assert_eq!(systemd.calls(), [""; 0]);
}

#[tokio::test]
async fn an_unreachable_systemd_is_asked_again() {
    let (node, systemd) = node();
    let change = change("a", KIND);
    let mut executor = remediator(&node, &systemd);
    settle(&mut executor, &wants(&change)).await;
    systemd.edit(|state| state.reachable = false);
    settle(&mut executor, &NOTHING_WANTED).await;
    assert_eq!(node.said(), "Failed RestoreFailed");
    assert!(node.report().unwrap().message.contains("the kubelet cannot be restarted"));
    assert_eq!(node.read(KUBEADM), KUBEADM_TEXT);
    systemd.edit(|state| state.reachable = true);
    settle(&mut executor, &NOTHING_WANTED).await;
    assert_eq!(node.said(), "RolledBack Withdrawn");
    assert!(runs_with_flag(&node));
}
