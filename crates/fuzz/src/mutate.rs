//! New inputs out of old ones: the changes that parsers stumble over, from a seed.

/// Numbers at whose edges arithmetic goes wrong.
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "127",
    "128",
    "255",
    "256",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999999",
    "1e400",
    "0x10",
    "+5",
    "007",
];
/// Texts that mean something to some parser.
const TRICKS: &[&str] = &[
    "..",
    "/../",
    "%2e%2e",
    "%2F",
    "%00",
    "%",
    "%zz",
    "\0",
    "\r\n",
    "\n",
    "\t",
    " ",
    "\u{feff}",
    "\u{202e}",
    "é",
    "İ",
    "ſ",
    "\"",
    "'",
    "\\",
    "//",
    "/",
    ":",
    "::",
    "@",
    ",",
    ";",
    "=",
    "-",
    "--",
    "_",
    "__",
    "___",
    "{",
    "}",
    "[",
    "]",
    "<",
    ">",
    "null",
    "true",
    "[]",
    "{}",
    "\u{1F600}",
];

/// A source of choices: SplitMix64, the same everywhere for one seed.
pub struct Choices(u64);

impl Choices {
    /// From a seed.
    pub fn new(seed: u64) -> Choices {
        Choices(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

/// A changed copy of one of `corpus` (which is not empty), at most `bytes_max` long.
pub fn mutated(choices: &mut Choices, corpus: &[Vec<u8>], words: &[&str], bytes_max: usize) -> Vec<u8> {
    let mut input = corpus[choices.below(corpus.len())].clone();
    for _ in 0..=choices.below(4) {
        change(choices, &mut input, corpus, words);
        input.truncate(bytes_max);
    }
    input
}

fn change(choices: &mut Choices, input: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[&str]) {
    let at = choices.below(input.len() + 1);
    let end = (at + choices.below(input.len().min(32) + 1)).min(input.len());
    match choices.below(12) {
        0 if at < input.len() => input[at] ^= 1 << choices.below(8),
        1 if at < input.len() => input[at] = choices.below(256) as u8,
        2 => drop(input.drain(at..end)),
        3 => {
            let piece = input[at..end].to_vec();
            for _ in 0..=choices.below(4) {
                input.splice(at..at, piece.iter().copied());
            }
        }
        4 => input.truncate(at),
        5 => splice(input, at..end, choices.one_of(NUMBERS).as_bytes()),
        6 => splice(input, at..at, choices.one_of(TRICKS).as_bytes()),
        7 => splice(input, at..end, choices.one_of(TRICKS).as_bytes()),
        8 if !words.is_empty() => splice(input, at..at, choices.one_of(words).as_bytes()),
        9 if at < input.len() => {
            input[at] = if input[at].is_ascii_lowercase() {
                input[at].to_ascii_uppercase()
            } else {
                input[at].to_ascii_lowercase()
            }
        }
        10 => {
            // The head of one input and the tail of another.
            let other = &corpus[choices.below(corpus.len())];
            let from = choices.below(other.len() + 1);
            splice(input, at..input.len(), &other[from..]);
        }
        _ => {
            // Digits where digits are: other numbers of the same shape.
            for byte in input.iter_mut().skip(at).take(8).filter(|b| b.is_ascii_digit()) {
                *byte = b'0' + choices.below(10) as u8;
            }
        }
    }
}

fn splice(input: &mut Vec<u8>, range: std::ops::Range<usize>, with: &[u8]) {
    input.splice(range, with.iter().copied());
}
