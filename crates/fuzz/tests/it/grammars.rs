//! A property test for each grammar.
