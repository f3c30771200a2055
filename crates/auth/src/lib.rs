//! Tokens, passwords, keys and the access decision: the only crate that knows JWT and password hashing.

pub mod access;
