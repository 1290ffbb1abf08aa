//! What changes, as it changes.

use std::{collections::BTreeMap, io::IsTerminal as _, pin::pin, time::Duration};

use futures::{StreamExt as _, stream};
use jiff::{Timestamp, Unit};
use kube::{
    Api, Client,
    api::DynamicObject,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use tokio::time::Instant;

use super::{
    Args, Error, Format,
    watched::{self, Watched},
};
use crate::{cli::output, kubernetes::failure::Failure};

/// How often a terminal is drawn anew where nothing but time has passed.
const TICK: Duration = Duration::from_secs(1);

/// So long after a change others that belong to it may follow.
const PAUSE: Duration = Duration::from_millis(100);

/// From the cursor's home on, everything that was there before is gone.
const ANEW: &str = "\x1b[H\x1b[2J";

enum Seen {
    Policy(watcher::Result<Event<DynamicObject>>),
    Node(watcher::Result<Event<DynamicObject>>),
}

/// Shows the policies, and then what changes, until nobody reads it any more.
///
/// # Errors
/// Where they cannot be watched.
pub async fn follow(client: Client, args: &Args) -> Result<(), Error> {
    let people = matches!(args.output, Format::Table | Format::Wide);
    let mut screen = Screen {
        format: args.output,
        redraws: people && std::io::stdout().is_terminal(),
        ..Screen::default()
    };
    let mut seen = Watched::new(args.name.clone());
    let policies = watched::policies(client.clone(), args.name.as_deref()).map(Seen::Policy);
    let nodes = Api::<DynamicObject>::all_with(client, &watched::node_resource());
    let nodes = watcher(nodes, watcher::Config::default()).default_backoff().map(Seen::Node);
    // Programs get the policies, and nothing of nodes.
    let nodes = if people { nodes.left_stream() } else { stream::empty().right_stream() };
    let mut events = pin!(stream::select(policies, nodes));
    let given_up = Instant::now() + args.timeout;
    // When something is shown next, and whether there is any news.
    let (mut next, mut due) = (Instant::now(), false);
    loop {
        match tokio::time::timeout_at(next, events.next()).await {
            Ok(event) => {
                match event {
                    None => return Err(Error::Ended),
                    Some(Seen::Policy(event)) => {
                        screen.hear(event.as_ref().err(), "StreamingPolicies");
                        seen.take_policy(event)?;
                    }
                    Some(Seen::Node(event)) => {
                        screen.hear(event.as_ref().err(), "StreamingNodes");
                        seen.take_node_event(event);
                    }
                }
                if !due {
                    (next, due) = (next.min(Instant::now() + PAUSE), true);
                }
            }
            Err(_) => {
                next = Instant::now() + TICK;
                if seen.is_complete() {
                    if (due || screen.redraws) && !screen.show(&seen)? {
                        return Ok(());
                    }
                    due = false;
                } else if !screen.begun && Instant::now() >= given_up {
                    return Err(seen.late(args.timeout));
                }
            }
        }
    }
}

/// What has been shown.
#[derive(Default)]
struct Screen {
    format: Format,
    redraws: bool,
    /// Something has been shown.
    begun: bool,
    /// What was last printed of each policy and node.
    lines: BTreeMap<(&'static str, String), String>,
    /// Why something cannot be watched now.
    troubles: BTreeMap<&'static str, String>,
}

impl Screen {
    /// Takes whether a kind can be watched.
    fn hear(&mut self, error: Option<&watcher::Error>, what: &'static str) {
        let Some(error) = error else {
            self.troubles.remove(what);
            return;
        };
        let why = Failure::among(error).map_or_else(|| error.to_string(), |why| why.to_string());
        let trouble = format!("warning: the {what} cannot be watched: {why}");
        let known = self.troubles.insert(what, trouble.clone());
        if !self.redraws && known.as_ref() != Some(&trouble) {
            anstream::eprintln!("{trouble}");
        }
    }

    /// Prints what is new; `false` once nobody reads it.
    fn show(&mut self, seen: &Watched) -> Result<bool, output::Error> {
        self.begun = true;
        let now = Timestamp::now();
        let text = if self.redraws { self.drawn(seen, now) } else { self.news(seen, now)? };
        if text.is_empty() { Ok(true) } else { output::print_or_end(&text) }
    }

    fn drawn(&self, seen: &Watched, now: Timestamp) -> String {
        let (rows, width) = (seen.rows(), output::width());
        let changes: Vec<_> = seen.changes().collect();
        let body = match self.format {
            _ if rows.is_empty() => "There is no StreamingPolicy.\n".to_owned(),
            Format::Wide => output::status::wide(&rows, &changes, now, width),
            _ => output::status::live(&rows, &changes, now, width),
        };
        let troubles: String = self.troubles.values().map(|text| format!("\n{text}\n")).collect();
        format!("{ANEW}{body}{troubles}")
    }

    /// What differs from what was printed, each on a line of its own or as a document.
    fn news(&mut self, seen: &Watched, now: Timestamp) -> Result<String, output::Error> {
        let mut text = String::new();
        let mut there = Vec::new();
        let mut tell = |kind: &'static str, name: &str, said: String, print: String| {
            let key = (kind, name.to_owned());
            there.push(key.clone());
            if self.lines.get(&key) != Some(&said) {
                text.push_str(&print);
                self.lines.insert(key, said);
            }
        };
        let at = now.round(Unit::Second).unwrap_or(now);
        match self.format {
            Format::Json | Format::Yaml => {
                for (name, policy) in seen.policies() {
                    let said = serde_json::to_string(policy)?;
                    let print = match self.format {
                        Format::Json => format!("{said}\n"),
                        _ => format!("---\n{}", output::yaml(policy)?),
                    };
                    tell("StreamingPolicy", name, said, print);
                }
            }
            Format::Table | Format::Wide => {
                for row in seen.rows() {
                    let said = output::status::line(&row);
                    let print = format!("{at} {said}\n");
                    tell("StreamingPolicy", &row.name, said, print);
                }
                for change in seen.changes() {
                    let said = output::status::change_line(change);
                    let print = format!("{at} {said}\n");
                    tell("StreamingNode", &change.node, said, print);
                }
            }
        }
        let gone: Vec<_> = self.lines.keys().filter(|key| !there.contains(key)).cloned().collect();
        for key in gone {
            self.lines.remove(&key);
            let (kind, name) = key;
            match (kind, self.format) {
                (_, Format::Json | Format::Yaml) => {}
                ("StreamingPolicy", _) => text.push_str(&format!("{at} policy {name} is gone\n")),
                _ => {
                    text.push_str(&format!("{at} node {name}: nothing is changed there any more\n"))
                }
            }
        }
        Ok(text)
    }
}
