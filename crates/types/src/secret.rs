//! A value that does not print.

use std::fmt;

use serde::{Deserialize, Deserializer};

/// Wraps a password, token or key so that `Debug`, `Display` and JSON cannot leak it.
/// [`Secret::expose`] is the one way in, and easy to search for.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Take a value into hiding.
    pub fn new(value: T) -> Secret<T> {
        Secret(value)
    }

    /// The value itself; never pass it to a log or an error.
    pub fn expose(&self) -> &T {
        &self.0
    }

    /// Consume the wrapper.
    pub fn into_exposed(self) -> T {
        self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T> From<T> for Secret<T> {
    fn from(value: T) -> Secret<T> {
        Secret(value)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Secret<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Secret<T>, D::Error> {
        T::deserialize(d).map(Secret)
    }
}
