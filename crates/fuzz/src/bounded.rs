//! A target under the limits of the test run: so many inputs, so much memory for each.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::mutate::{Choices, mutated};
use crate::{Target, corpus};

/// Bytes that reading an input may allocate at once, for each byte of it. A parser of JSON
/// turns `{},` into a descriptor's worth of nothing; none makes more than this of a byte.
const HELD_PER_BYTE_MAX: u64 = 512;
/// What reading may hold besides.
const HELD_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Bytes that are allocated over all, whether held or not, for each byte of input. Work that
/// grows with the square of the input passes this.
const WORK_PER_BYTE_MAX: u64 = 4_096;
/// What may be allocated over all besides.
const WORK_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ran {
    /// Inputs of the corpus.
    pub corpus: usize,
    /// Inputs made from them.
    pub made: usize,
}

/// Try the corpus, and then `made` inputs made from it with `seed`.
///
/// Panics, after it has printed the input, when a property does not hold or a limit is
/// passed.
pub fn run(target: &Target, made: usize, seed: u64) -> Ran {
    let corpus = corpus::read(target.name);
    assert!(!corpus.is_empty(), "{} has no corpus", target.name);
    for input in &corpus {
        tried(target, input);
    }
    let mut choices = Choices::new(seed);
    for _ in 0..made {
        tried(target, &mutated(&mut choices, &corpus, target.words, target.bytes_max));
    }
    Ran { corpus: corpus.len(), made }
}

/// Try one input under the limits.
pub fn tried(target: &Target, input: &[u8]) {
    let say = || eprintln!("{} fails on:\n{}", target.name, corpus::escape(input));
    let measured = || {
        let mut outcome = Ok(());
        let used = allocation_counter::measure(|| {
            outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
        });
        if let Err(panic) = outcome {
            say();
            resume_unwind(panic);
        }
        used
    };
    let mut used = measured();
    if used.bytes_total > WORK_BYTES_MAX {
        // What is made once and kept (a grammar, a key) is not the input's doing.
        used = measured();
    }
    let length = input.len() as u64;
    let (held, work) = (used.bytes_max, used.bytes_total);
    if held > HELD_BYTES_MAX + HELD_PER_BYTE_MAX * length || work > WORK_BYTES_MAX + WORK_PER_BYTE_MAX * length {
        say();
        panic!("{}: {length} bytes of input made it hold {held} bytes and allocate {work}", target.name);
    }
}
