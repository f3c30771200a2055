//! Small things that evaluation handles: variables, paths, ports.

use std::collections::HashMap;

/// Variables in the order first set.
#[derive(Clone, Debug, Default)]
pub(super) struct Vars {
    pub(super) all: Vec<(String, String)>,
    places: HashMap<String, usize>,
    /// Of all names and values together.
    pub(super) bytes: usize,
}

impl Vars {
    pub(super) fn get(&self, name: &str) -> Option<&String> {
        self.places.get(name).map(|at| &self.all[*at].1)
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        match self.places.get(name) {
            Some(at) => {
                let old = &mut self.all[*at].1;
                self.bytes = self.bytes - old.len() + value.len();
                value.clone_into(old);
            }
            None => {
                self.places.insert(name.to_owned(), self.all.len());
                self.all.push((name.to_owned(), value.to_owned()));
                self.bytes += name.len() + value.len();
            }
        }
    }

    /// `K=V`, as an image's configuration has them.
    pub(super) fn pairs(&self) -> Vec<String> {
        self.all.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

/// `path` seen from `base`, without `.`, `..` and double slashes.
pub(super) fn absolute(base: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{base}/{path}") };
    let mut out: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    format!("/{}", out.join("/"))
}

/// The ports that one word of `EXPOSE` names: `80`, `80/udp`, `8000-8010`, and, as docker
/// still takes it, `[address:]host:container`.
pub(super) fn exposed(word: &str) -> Option<Vec<String>> {
    let container = word.rsplit(':').next()?;
    let (ports, protocol) = match container.split_once('/') {
        Some((ports, protocol)) => (ports, protocol.to_ascii_lowercase()),
        None => (container, String::new()),
    };
    let protocol = match protocol.as_str() {
        "" => "tcp",
        "tcp" | "udp" | "sctp" => protocol.as_str(),
        _ => return None,
    };
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u16>().ok()).flatten();
    let (first, last) = match ports.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(ports)?, number(ports)?),
    };
    (first <= last).then(|| (first..=last).map(|port| format!("{port}/{protocol}")).collect())
}
