//! A process of the test's, killed when it is dropped.

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// A process of the test's that writes a log.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program; both its outputs go to the end of `log`.
    pub fn start(program: &Path, arguments: &[String], log: &Path) -> Self {
        let output = File::options().create(true).append(true).open(log).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        Self { child, log: log.to_owned() }
    }

    /// The end of what it wrote.
    pub fn log(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let end = log.len().saturating_sub(8_000);
        String::from_utf8_lossy(&log[end..]).into_owned()
    }
}

/// What can be asked of and done to a process.
pub trait Running {
    /// The process, and what it has written.
    fn process(&mut self) -> &mut Process;

    /// Its number.
    fn id(&mut self) -> u32 {
        self.process().child.id()
    }

    /// Whether it has not ended.
    fn is_running(&mut self) -> bool {
        self.exited().is_none()
    }

    /// How it has ended, if it has.
    fn exited(&mut self) -> Option<ExitStatus> {
        self.process().child.try_wait().unwrap()
    }
}

impl Running for Process {
    fn process(&mut self) -> &mut Process {
        self
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- {}\n{}", self.log.display(), self.log());
        }
    }
}

/// Sends a signal, such as `TERM`.
pub fn signal(process: &mut impl Running, name: &str) {
    let status =
        Command::new("kill").arg(format!("-{name}")).arg(process.id().to_string()).status();
    assert!(status.unwrap().success());
}

/// A port of 127.0.0.1 for a program that will bind it. The kernel gives none of these to a connection or to whoever binds
/// port 0, so nobody takes it by chance before; tests that run at once, in processes of their own, look in other places.
pub fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const PORTS: u32 = 20_000;
    const OF_ONE_PROCESS: u32 = 16;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let nth = std::process::id() * OF_ONE_PROCESS + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (nth % PORTS) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
