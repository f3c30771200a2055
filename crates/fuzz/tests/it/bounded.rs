//! The targets, each for so many inputs: the same ones every time.

use portolan_fuzz::mutate::Choices;
use portolan_fuzz::{bounded, corpus, mutate, targets};

/// Inputs made for each target. `PORTOLAN_FUZZ_INPUTS` has another number for once.
const INPUTS: usize = 20_000;
/// The same run everywhere. `PORTOLAN_FUZZ_SEED` has another for once.
const SEED: u64 = 3;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn run(name: &str) {
    let target = targets::by_name(name).unwrap();
    let inputs = number("PORTOLAN_FUZZ_INPUTS").map_or(INPUTS, |n| usize::try_from(n).unwrap());
    let ran = bounded::run(target, inputs, number("PORTOLAN_FUZZ_SEED").unwrap_or(SEED));
    println!("{name}: {} of the corpus, {} made", ran.corpus, ran.made);
}

macro_rules! each {
    ($($name:ident)*) => {
        const NAMED: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                run(stringify!($name));
            }
        )*
    };
}

each! {
    repo_name tag digest reference image_ref registry_name group_name platform ids timestamp
    range content_range if_none_match log_window authorization challenge link host proxies scope page filter
    v2_path acr_path arm_path signed_url
    manifest config arm_body block_list
    token scope_map foreign_token certificate ssh_key graph_filter graph_path
    dockerfile expansion mount name_query reach mode checks ignore build_cache packages tar listing address
}

#[test]
fn every_target_is_run_and_has_a_corpus_of_its_own() {
    assert_eq!(NAMED, targets::ALL.iter().map(|t| t.name).collect::<Vec<_>>());
    let mut files: Vec<String> = std::fs::read_dir(corpus::folder())
        .unwrap()
        .map(|f| f.unwrap().file_name().into_string().unwrap().trim_end_matches(".txt").to_owned())
        .collect();
    files.sort();
    let mut names = NAMED.to_vec();
    names.sort_unstable();
    assert_eq!(files, names);
}

#[test]
fn what_is_escaped_comes_back() {
    let mut choices = Choices::new(SEED);
    let corpus = [b"\\x41{5}{ :// \0\0\0\0\0{{\n ".to_vec(), vec![b'a'; 40], vec![0xff; 3], b" {".to_vec()];
    for _ in 0..20_000 {
        let input = mutate::mutated(&mut choices, &corpus, &["{", "\\", "\0\0\0\0"], 200);
        let line = corpus::escape(&input);
        assert!(!line.contains('\n') && line.is_ascii() && !line.ends_with(' '), "{line}");
        assert_eq!(corpus::unescape(&line), Some(input), "{line}");
    }
    for bad in ["\\", "\\x", "\\xg0", "\\q", "\\n{", "\\n{x}", "\\n{9999999999}"] {
        assert_eq!(corpus::unescape(bad), None, "{bad}");
    }
}

#[test]
fn signed_addresses_are_in_the_corpus() {
    let corpus = corpus::read("signed_url");
    for (path, query, _) in targets::signed_addresses() {
        let input = format!("{path}\n{query}");
        assert!(corpus.contains(&input.clone().into_bytes()), "{}", corpus::escape(input.as_bytes()));
    }
}

#[test]
fn a_parser_that_takes_too_much_is_found() {
    let greedy = |name, run| portolan_fuzz::Target { name, run, words: &[], bytes_max: 10 };
    let fails = |target: portolan_fuzz::Target, input: &[u8]| {
        std::panic::catch_unwind(|| bounded::tried(&target, input)).is_err()
    };
    let holds = greedy("holds", |input| drop(vec![0u8; 8 * 1024 * 1024 * usize::from(input[0])]));
    assert!(fails(holds, &[1]) && !fails(holds, &[0]));
    let squares = greedy("squares", |input| {
        for at in 0..input.len() {
            drop(std::hint::black_box(input[..at].to_vec()));
        }
    });
    assert!(fails(squares, &[0; 40_000]) && !fails(squares, &[0; 100]));
    let panics = greedy("panics", |input| assert!(input[0] == 0));
    assert!(fails(panics, &[1]) && !fails(panics, &[0]));
}
