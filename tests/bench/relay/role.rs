//! The roles that this program plays as a process of its own: a relay, or the server behind it.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use sluice::relay::{Limits, Listener, Relay, RelaySettings, Upstream, raise_descriptors};

use crate::server;

const ROLE: &str = "--role";

/// A process that listens somewhere.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
}

impl Process {
    /// Starts this program in a role; it says on which address.
    fn start(arguments: &[String]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(ROLE)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, address: line.trim().parse().unwrap() }
    }

    /// Starts another program, which listens there.
    pub fn other(command: &mut Command, address: SocketAddr) -> Self {
        Self { child: command.spawn().unwrap(), address }
    }

    pub fn server() -> Self {
        Self::start(&["server".into()])
    }

    pub fn relay(backend: &Self, limits: Limits) -> Self {
        let Limits { connection, node } = limits;
        let backend = backend.address.to_string();
        Self::start(&["relay".into(), backend, connection.to_string(), node.to_string()])
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // nginx has children, which it ends when it is asked to.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// Plays a role, if that is what the program was started for.
pub fn play(arguments: &[String]) -> bool {
    let Some(at) = arguments.iter().position(|argument| argument == ROLE) else { return false };
    match arguments[at + 1..].iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["server", ..] => server::serve(),
        ["relay", backend, connection, node, ..] => {
            let limits =
                Limits { connection: connection.parse().unwrap(), node: node.parse().unwrap() };
            relay(backend.parse().unwrap(), limits);
        }
        _ => panic!("no such role: {arguments:?}"),
    }
    true
}

pub fn say(address: SocketAddr) {
    println!("{address}");
    std::io::stdout().flush().unwrap();
}

fn relay(backend: SocketAddr, limits: Limits) {
    // The relay has threads of its own for its streams; this one takes connections.
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        raise_descriptors();
        let relay = Relay::new(RelaySettings::new(Upstream::Fixed(backend)));
        relay.set_limits(limits);
        let listener = Listener::bind("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        // Said once it serves: a connection has its limits from the handshake on.
        let serving = relay.serve(listener, std::future::pending());
        tokio::join!(serving, async { say(SocketAddr::from(([127, 0, 0, 1], port))) });
    });
}
