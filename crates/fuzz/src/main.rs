//! One target on one input, or under libFuzzer. `cargo xtask fuzz` is the way in.

#![cfg_attr(fuzzing, no_main)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a tool of the tests")]

/// Under libFuzzer the target is named by the environment: one program for all of them.
#[cfg(fuzzing)]
mod guided {
    use std::sync::OnceLock;

    libfuzzer_sys::fuzz_target!(|input: &[u8]| {
        static RUN: OnceLock<fn(&[u8])> = OnceLock::new();
        let run = RUN.get_or_init(|| {
            let name = std::env::var("PORTOLAN_FUZZ_TARGET").unwrap_or_default();
            portolan_fuzz::targets::by_name(&name).expect("PORTOLAN_FUZZ_TARGET names a target").run
        });
        run(input);
    });
}

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    plain::main()
}

#[cfg(not(fuzzing))]
mod plain {
    use std::path::Path;
    use std::process::ExitCode;

    use portolan_fuzz::{Target, bounded, corpus, targets};

    const USAGE: &str = "usage: portolan-fuzz list
       portolan-fuzz try TARGET INPUT      one input, written as in the corpus
       portolan-fuzz file TARGET FILE…     inputs as they are
       portolan-fuzz unpack TARGET FOLDER  the corpus as files, and TARGET.dict beside the folder
       portolan-fuzz pack TARGET FOLDER    files as the corpus";

    pub(super) fn main() -> ExitCode {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["list"] => {
                for target in targets::ALL {
                    println!("{} {}", target.name, target.bytes_max);
                }
                ExitCode::SUCCESS
            }
            [what, name, rest @ ..] if !rest.is_empty() => match targets::by_name(name) {
                Some(target) => run(what, target, rest),
                None => usage(),
            },
            _ => usage(),
        }
    }

    fn usage() -> ExitCode {
        eprintln!("{USAGE}");
        ExitCode::FAILURE
    }

    fn run(what: &str, target: &Target, rest: &[&str]) -> ExitCode {
        match (what, rest) {
            ("try", [line]) => match corpus::unescape(line) {
                Some(input) => bounded::tried(target, &input),
                None => return usage(),
            },
            ("file", files) => {
                for file in files {
                    let input = std::fs::read(file).unwrap();
                    println!("{}", corpus::escape(&input));
                    bounded::tried(target, &input);
                }
            }
            ("unpack", [folder]) => {
                std::fs::create_dir_all(folder).unwrap();
                for (at, input) in corpus::read(target.name).iter().enumerate() {
                    std::fs::write(Path::new(folder).join(format!("{at:05}")), input).unwrap();
                }
                let quoted = |word: &&str| {
                    let bytes: String = word.bytes().map(|b| format!("\\x{b:02x}")).collect();
                    format!("\"{bytes}\"\n")
                };
                let words: String = target.words.iter().map(quoted).collect();
                std::fs::write(Path::new(folder).with_extension("dict"), words).unwrap();
            }
            ("pack", [folder]) => {
                let files = std::fs::read_dir(folder).unwrap();
                let inputs = files.map(|f| std::fs::read(f.unwrap().path()).unwrap()).collect();
                corpus::write(target.name, inputs).unwrap();
            }
            _ => return usage(),
        }
        ExitCode::SUCCESS
    }
}
