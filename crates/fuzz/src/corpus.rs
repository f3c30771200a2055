//! Inputs kept as text, so that a reviewer can read them and a diff shows what was added.
//!
//! `corpus/<target>.txt` has one input a line. Printable ASCII stands for itself; a
//! backslash, a blank at an end, `:` before `//` and everything else are `\xNN`, `\n`,
//! `\r`, `\t` or `\\`; an escape before `{n}` stands for itself `n` times.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The folder of the corpus files.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The inputs of a target, in the file's order.
pub fn read(target: &str) -> Vec<Vec<u8>> {
    let path = folder().join(format!("{target}.txt"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    let lines = text.lines().enumerate();
    lines
        .map(|(at, line)| unescape(line).unwrap_or_else(|| panic!("{}:{}: bad escape", path.display(), at + 1)))
        .collect()
}

/// Write the inputs of a target, sorted, each once.
pub fn write(target: &str, mut inputs: Vec<Vec<u8>>) -> std::io::Result<()> {
    inputs.sort_by_key(|i| (i.len(), i.clone()));
    inputs.dedup();
    let text: String = inputs.iter().map(|input| escape(input) + "\n").collect();
    std::fs::write(folder().join(format!("{target}.txt")), text)
}

/// One input as a line.
pub fn escape(input: &[u8]) -> String {
    let mut out = String::new();
    let mut at = 0;
    let mut escaped = false;
    while at < input.len() {
        let byte = input[at];
        let same = input[at..].iter().take_while(|b| **b == byte).count();
        let edge = at == 0 || at + 1 == input.len();
        let address = byte == b':' && input[at + 1..].starts_with(b"//");
        // A brace behind an escape would be a count.
        let count = byte == b'{' && escaped;
        escaped = !is_plain(byte) || (byte == b' ' && edge) || address || count || same >= 16;
        if !escaped {
            out.push(byte as char);
            at += 1;
            continue;
        }
        // Writing to a String cannot fail.
        let _ = match byte {
            b'\n' => write!(out, "\\n"),
            b'\r' => write!(out, "\\r"),
            b'\t' => write!(out, "\\t"),
            b'\\' => write!(out, "\\\\"),
            byte => write!(out, "\\x{byte:02x}"),
        };
        let times = if same >= 4 { same } else { 1 };
        if times > 1 {
            let _ = write!(out, "{{{times}}}");
        }
        at += times;
    }
    out
}

fn is_plain(byte: u8) -> bool {
    (byte.is_ascii_graphic() || byte == b' ') && byte != b'\\'
}

/// The inverse of [`escape`]; `None` when a line is not of its form.
pub fn unescape(line: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = line.as_bytes();
    while let [first, more @ ..] = rest {
        rest = more;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        let (kind, more) = rest.split_first()?;
        rest = more;
        let byte = match kind {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'\\' => b'\\',
            b'x' => {
                let (digits, more) = rest.split_at_checked(2)?;
                rest = more;
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            _ => return None,
        };
        let mut times = 1;
        if let Some(counted) = rest.strip_prefix(b"{") {
            let end = counted.iter().position(|b| *b == b'}')?;
            times = std::str::from_utf8(&counted[..end]).ok()?.parse().ok().filter(|n| *n <= 1 << 20)?;
            rest = &counted[end + 1..];
        }
        out.extend(std::iter::repeat_n(byte, times));
    }
    Some(out)
}
