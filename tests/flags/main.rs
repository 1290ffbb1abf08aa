//! Random command lines, read by Sluice and by the parser that Kubernetes uses.
//!
//! Needs the program of `tests/flags/pflag`, which `make flags-test` builds; its path is in
//! `PFLAG_ANSWERS`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    io::Write,
    process::{Command, Stdio},
};

use proptest::{
    prelude::*,
    sample::select,
    strategy::ValueTree,
    test_runner::{Config, RngSeed, TestRunner},
};
use serde::Deserialize;
use sluice::kubernetes::{
    arguments::kubelet::{self, FlagValue},
    feature_gates::FeatureGates,
};

const FLAG: &str = "redirect-container-streaming";
const GATE: &str = "StreamingProxyRedirects";

/// So many command lines are tried.
const LINES: usize = 20_000;

/// What the parser of Kubernetes says.
#[derive(Debug, Deserialize)]
struct Answer {
    /// Why the program would not start; empty where it would.
    error: String,
    redirects: Option<bool>,
    gate: Option<bool>,
}

/// A few words in one of the spellings in which there are flags and values, and in some in which
/// there are none.
fn words() -> impl Strategy<Value = Vec<String>> {
    let bools = select(&["true", "false", "1", "F", "T", "maybe", ""][..]);
    let flag = select(
        &[
            "--redirect-container-streaming",
            "--redirect_container_streaming",
            "--redirect_container-streaming",
            "-redirect-container-streaming",
            "---redirect-container-streaming",
        ][..],
    );
    let gates = select(
        &[
            "StreamingProxyRedirects=false",
            "StreamingProxyRedirects=true,Other=true",
            "Other=false, StreamingProxyRedirects = 0",
            "Other=true",
            "AllBeta=true",
            "",
        ][..],
    );
    let gates_flag = select(&["--feature-gates", "--feature_gates", "-feature-gates"][..]);
    let boolean = select(&["--anonymous-auth", "--made-up-bool", "--anonymous_auth=false"][..]);
    let text = select(&["--config", "--advertise-address", "--made-up-text", "--made_up_text"][..]);
    let value = select(
        &["x", "--", "-", "-v", "--made-up-bool", "--redirect-container-streaming=false"][..],
    );
    let one = |word: String| vec![word];
    prop_oneof![
        2 => flag.clone().prop_map(|flag| vec![flag.to_owned()]),
        4 => (flag, bools).prop_map(move |(flag, on)| one(format!("{flag}={on}"))),
        3 => (gates_flag.clone(), gates.clone()).prop_map(move |(f, g)| one(format!("{f}={g}"))),
        3 => (gates_flag, gates).prop_map(|(f, g)| vec![f.to_owned(), g.to_owned()]),
        3 => boolean.prop_map(|word| vec![word.to_owned()]),
        3 => (text.clone(), value.clone()).prop_map(|(t, v)| vec![t.to_owned(), v.to_owned()]),
        2 => (text, value).prop_map(move |(t, v)| one(format!("{t}={v}"))),
        1 => select(&["-v=2", "-v2", "-v", "--v=2", "--v", "2", "--", "-x"][..])
            .prop_map(|word| vec![word.to_owned()]),
    ]
}

fn answers(lines: &[Vec<String>]) -> Vec<Answer> {
    let program = std::env::var("PFLAG_ANSWERS").expect("make flags-test sets PFLAG_ANSWERS");
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let text: String =
        lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("it reads everything");
    let text = String::from_utf8(output.stdout).expect("JSON");
    text.lines().map(|line| serde_json::from_str(line).expect("an answer")).collect()
}

#[test]
#[ignore = "needs a program in Go: make flags-test"]
fn what_is_certain_is_what_pflag_says() {
    let config = Config { rng_seed: RngSeed::Fixed(1), ..Config::default() };
    let mut runner = TestRunner::new(config);
    let line = prop::collection::vec(words(), 0..7).prop_map(|words| words.concat());
    let lines: Vec<Vec<String>> =
        (0..LINES).map(|_| line.new_tree(&mut runner).expect("a line").current()).collect();
    let answers = answers(&lines);
    assert_eq!(answers.len(), lines.len());
    let (mut started, mut certain) = (0, 0);
    for (line, answer) in lines.iter().zip(&answers) {
        // What does not start says nothing that matters.
        if !answer.error.is_empty() {
            continue;
        }
        started += 1;
        let says = kubelet::boolean(line.iter().map(String::as_str), FLAG);
        let expected = match answer.redirects {
            Some(true) => FlagValue::On,
            Some(false) => FlagValue::Off,
            None => FlagValue::Absent,
        };
        if says != FlagValue::Unreadable {
            certain += 1;
            assert_eq!(says, expected, "{line:?}");
        }
        let gates = FeatureGates::from_args(line.iter().map(String::as_str));
        if gates.unreadable().is_none() {
            assert_eq!(gates.get(GATE), answer.gate, "{line:?}");
        }
    }
    println!("{started} of {LINES} lines start a program, {certain} of them are read for certain");
    assert!(started > LINES / 20 && certain > started / 2, "{started} {certain}");
}
