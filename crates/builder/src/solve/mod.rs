//! From instructions to an image: what each stage amounts to (`eval`), what of it was done
//! before (`probe`), doing the rest (`work`), and the documents at the end (`image`).

mod eval;
mod history;
mod key;
mod signal;
