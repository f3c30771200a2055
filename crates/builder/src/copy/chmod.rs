//! `--chmod`: an octal number, or chmod(1)'s symbolic words.

use std::fmt;

/// Clauses and operations of one text, at most.
const OPS_MAX: usize = 256;
/// Set-user-id, set-group-id, sticky and the nine.
const ALL: u32 = 0o7777;

/// How the permission bits of a copied file come about.
///
/// Symbolic words are read as by chmod(1) under a umask of 0: `u=rwX,go=rX`, `a+x`, `g=u`,
/// `+t`. `X` gives the right to run to directories and to what somebody may run already.
#[derive(Clone, PartialEq, Eq)]
pub struct Chmod {
    text: String,
    how: How,
}

#[derive(Clone, PartialEq, Eq)]
enum How {
    Plain(u32),
    Ops(Vec<Op>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Op {
    /// The classes it is for, each as the nine bits of its own: `u` 0o700, `g` 0o070, `o` 0o007.
    who: u32,
    /// Whether nobody was named: the sticky bit is then meant too.
    everyone: bool,
    kind: u8,
    /// Three bits, put into each class.
    rights: u32,
    /// `X` among the rights.
    run_if_run: bool,
    /// Set-user-id and set-group-id, sticky.
    set_id: bool,
    sticky: bool,
    /// `g=u`: the rights of this class instead (how far its bits are shifted).
    like: Option<u32>,
}

/// Why a text is no mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidMode;

impl fmt::Display for InvalidMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is neither an octal number up to 7777 nor words such as u=rwX,go=rX")
    }
}

impl std::error::Error for InvalidMode {}

impl From<u32> for Chmod {
    /// These bits, whatever the file has.
    fn from(mode: u32) -> Chmod {
        Chmod { text: format!("{:o}", mode & ALL), how: How::Plain(mode & ALL) }
    }
}

impl std::str::FromStr for Chmod {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Chmod, InvalidMode> {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return match u32::from_str_radix(text, 8) {
                Ok(mode) if mode <= ALL => Ok(Chmod::from(mode)),
                _ => Err(InvalidMode),
            };
        }
        let mut ops = Vec::new();
        for clause in text.split(',') {
            read_clause(clause, &mut ops)?;
            if ops.len() > OPS_MAX {
                return Err(InvalidMode);
            }
        }
        Ok(Chmod { text: text.to_owned(), how: How::Ops(ops) })
    }
}

fn read_clause(clause: &str, ops: &mut Vec<Op>) -> Result<(), InvalidMode> {
    let end = clause.find(['+', '-', '=']).ok_or(InvalidMode)?;
    let mut who = 0;
    for c in clause[..end].chars() {
        who |= match c {
            'u' => 0o700,
            'g' => 0o070,
            'o' => 0o007,
            'a' => 0o777,
            _ => return Err(InvalidMode),
        };
    }
    let everyone = who == 0 || who == 0o777;
    let who = if who == 0 { 0o777 } else { who };
    let mut rest = clause[end..].chars().peekable();
    while let Some(kind) = rest.next() {
        let mut op = Op {
            who,
            everyone,
            kind: kind as u8,
            rights: 0,
            run_if_run: false,
            set_id: false,
            sticky: false,
            like: None,
        };
        let mut count = 0;
        while let Some(c) = rest.next_if(|c| !matches!(c, '+' | '-' | '=')) {
            match c {
                'r' => op.rights |= 4,
                'w' => op.rights |= 2,
                'x' => op.rights |= 1,
                'X' => op.run_if_run = true,
                's' => op.set_id = true,
                't' => op.sticky = true,
                // Another class's rights stand alone.
                'u' | 'g' | 'o' if count == 0 => {
                    op.like = Some(match c {
                        'u' => 6,
                        'g' => 3,
                        _ => 0,
                    })
                }
                _ => return Err(InvalidMode),
            }
            if op.like.is_some() && count > 0 {
                return Err(InvalidMode);
            }
            count += 1;
        }
        ops.push(op);
    }
    Ok(())
}

impl Chmod {
    /// The bits of a file that had `mode`; of the type only whether it is a directory counts.
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match &self.how {
            How::Plain(mode) => *mode,
            How::Ops(ops) => ops.iter().fold(mode & ALL, |mode, op| op.apply(mode, is_dir)),
        }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Op {
    fn apply(self, mode: u32, is_dir: bool) -> u32 {
        let mut rights = self.rights;
        if let Some(shift) = self.like {
            rights = (mode >> shift) & 7;
        }
        if self.run_if_run && (is_dir || mode & 0o111 != 0) {
            rights |= 1;
        }
        let mut bits = (rights * 0o111) & self.who;
        if self.set_id {
            bits |= if self.who & 0o700 != 0 { 0o4000 } else { 0 };
            bits |= if self.who & 0o070 != 0 { 0o2000 } else { 0 };
        }
        if self.sticky && (self.everyone || self.who & 0o007 != 0) {
            bits |= 0o1000;
        }
        match self.kind {
            b'+' => mode | bits,
            b'-' => mode & !bits,
            _ => {
                let mut cleared = self.who;
                cleared |= if self.who & 0o700 != 0 { 0o4000 } else { 0 };
                cleared |= if self.who & 0o070 != 0 { 0o2000 } else { 0 };
                cleared |= if self.everyone || self.who & 0o007 != 0 { 0o1000 } else { 0 };
                // chmod(1) leaves the set-id bits of directories alone unless they are named.
                if is_dir && !self.set_id {
                    cleared &= !0o6000;
                }
                (mode & !cleared) | bits
            }
        }
    }
}

impl fmt::Debug for Chmod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chmod({})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbolic_modes_are_chmods() {
        for (text, mode, is_dir, expected) in [
            ("755", 0o600, false, 0o755),
            ("0644", 0o4711, false, 0o644),
            ("7777", 0, true, 0o7777),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o711, false, 0o755),
            ("u=rwX,go=rX", 0o700, true, 0o755),
            ("a+x", 0o644, false, 0o755),
            ("+x", 0o644, false, 0o755),
            ("-w", 0o666, false, 0o444),
            ("g=u", 0o640, false, 0o660),
            ("o=", 0o777, false, 0o770),
            ("u+s", 0o755, false, 0o4755),
            ("ug+s", 0o755, false, 0o6755),
            ("+t", 0o777, true, 0o1777),
            ("g-s", 0o2755, true, 0o755),
            ("u+w-x", 0o555, false, 0o655),
            ("a=r,u+w", 0o777, false, 0o644),
            ("=rw", 0o4777, false, 0o666),
        ] {
            let chmod: Chmod = text.parse().unwrap();
            assert_eq!(format!("{:o}", chmod.apply(mode, is_dir)), format!("{expected:o}"), "{text} on {mode:o}");
        }
        for bad in ["", "x", "u", "8", "17777", "u=q", "u=gx", "u=rw,", "z+x", "u=ug", "755x"] {
            assert_eq!(bad.parse::<Chmod>(), Err(InvalidMode), "{bad}");
        }
    }

    #[test]
    fn as_the_real_chmod() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for text in ["u=rwX,go=rX", "g=u-w", "a-rwx", "u+s,g+s", "o=g", "+X", "=", "a+rwX,o-w", "u=rw,+t"] {
            for mode in [0o000, 0o600, 0o644, 0o755, 0o4711, 0o1777, 0o2070] {
                std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
                let done = std::process::Command::new("sh")
                    .args(["-c", r#"umask 0; chmod "$0" "$1""#, text])
                    .arg(&file)
                    .status()
                    .unwrap();
                assert!(done.success(), "{text}");
                let real = std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777;
                let ours = text.parse::<Chmod>().unwrap().apply(mode, false);
                assert_eq!(format!("{ours:o}"), format!("{real:o}"), "{text} on {mode:o}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[ugoa+=,rwxXst0-9-]{0,20}", mode in 0u32..0o10000) {
            if let Ok(chmod) = text.parse::<Chmod>() {
                assert!(chmod.apply(mode, mode & 1 == 0) <= 0o7777);
            }
        }
    }
}
