//! Cache keys: what a step's result depends on, as one digest.

use portolan_types::Digest;
use portolan_types::digest::{Algorithm, Hasher};

/// Goes into every key, so that a change of what steps do leaves old records unused.
const VERSION: &str = "portolan-step-1";

/// A key in the making. Every part is written with its length, so that no two lists of
/// parts are the same bytes.
pub(super) struct Key(Hasher);

impl Key {
    pub(super) fn new(kind: &str) -> Key {
        Key(Hasher::new(Algorithm::Sha256)).part(VERSION.as_bytes()).part(kind.as_bytes())
    }

    pub(super) fn part(mut self, bytes: &[u8]) -> Key {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    pub(super) fn text(self, text: &str) -> Key {
        self.part(text.as_bytes())
    }

    pub(super) fn digest(self, digest: &Digest) -> Key {
        self.part(digest.bytes())
    }

    pub(super) fn flag(self, flag: bool) -> Key {
        self.part(&[u8::from(flag)])
    }

    /// A list, with its length, so that it cannot run into the next part.
    pub(super) fn list<'a>(self, items: impl ExactSizeIterator<Item = &'a str>) -> Key {
        let key = self.part(&(items.len() as u64).to_le_bytes());
        items.fold(key, Key::text)
    }

    pub(super) fn option(self, text: Option<&str>) -> Key {
        match text {
            Some(text) => self.flag(true).text(text),
            None => self.flag(false),
        }
    }

    pub(super) fn finish(self) -> Digest {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        let keys = [
            Key::new("a").text("bc").finish(),
            Key::new("ab").text("c").finish(),
            Key::new("a").text("b").text("c").finish(),
            Key::new("a").list(["b", "c"].into_iter()).finish(),
            Key::new("a").list(["b"].into_iter()).text("c").finish(),
            Key::new("a").option(None).text("bc").finish(),
        ];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }
}
