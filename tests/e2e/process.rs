//! Programs that a test starts: with a deadline, or until the test ends them.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How a command ended.
#[derive(Debug)]
pub struct Output {
    command: String,
    status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// The exit code; absent after a signal.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Standard output without the newline at its end.
    pub fn text(&self) -> &str {
        self.stdout.trim_end()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("no JSON: {e}\n{self}"))
    }

    /// Fails the test unless the command succeeded.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert!(self.success(), "failed: {self}");
        self
    }

    /// Fails the test unless the command failed; returns what it said on standard error.
    #[track_caller]
    pub fn failed(self) -> String {
        assert!(!self.success(), "ought to have failed: {self}");
        self.stderr.trim_end().to_owned()
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n--- stdout\n{}\n--- stderr\n{}", self.command, self.stdout, self.stderr)
    }
}

/// Runs a command to its end.
#[track_caller]
pub fn run(command: &mut Command, input: Option<&str>, deadline: Duration) -> Output {
    let description = format!("{command:?}");
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|e| panic!("start {description}: {e}"));
    let stdout = collect(child.stdout.take().expect("piped"));
    let stderr = collect(child.stderr.take().expect("piped"));
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        // A command that ends early closes the pipe; what it says about that matters more.
        let _ = pipe.write_all(input.as_bytes());
    }
    let end = Instant::now() + deadline;
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait for a child") {
            break status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            panic!("not done after {deadline:?}: {description}");
        }
        thread::sleep(Duration::from_millis(10));
    };
    let text = |output: JoinHandle<String>| output.join().expect("read a pipe");
    Output { command: description, status, stdout: text(stdout), stderr: text(stderr) }
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A command that is still running. Dropping it ends it.
pub struct Session {
    child: Child,
    stdout: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
}

impl Session {
    pub fn start(command: &mut Command) -> Self {
        let child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|e| panic!("start {command:?}: {e}"));
        let pipe = BufReader::new(child.stdout.take().expect("piped"));
        let stderr = Some(collect(child.stderr.take().expect("piped")));
        let (lines, stdout) = mpsc::channel();
        thread::spawn(move || {
            pipe.lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
        });
        Self { child, stdout, stderr }
    }

    pub fn say(&mut self, line: &str) {
        // If it has ended already, the answer that never comes tells why.
        let _ = writeln!(self.child.stdin.as_mut().expect("piped"), "{line}");
    }

    /// The next line of output with this text in it, or, if the command ends first, what it said on standard error.
    #[track_caller]
    pub fn line_with(&mut self, text: &str, deadline: Duration) -> Result<String, String> {
        let end = Instant::now() + deadline;
        loop {
            match self.stdout.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(text) => return Ok(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    panic!("waited {deadline:?} in vain for a line with {text:?}")
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let stderr = self.stderr.take().map(|s| s.join().expect("read a pipe"));
                    return Err(stderr.unwrap_or_default().trim_end().to_owned());
                }
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
