use proptest::prelude::*;

use super::*;

fn env(name: &str) -> Option<String> {
    let value = match name {
        "x" => "value",
        "empty" => "",
        "path" => "a/b/c.tar.gz",
        "words" => "one two",
        "d" => "'q'",
        _ => return None,
    };
    Some(value.to_owned())
}

fn word(text: &str) -> String {
    match Lexer::new('\\').word(text, &env) {
        Ok(word) => word,
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn one_word() {
    for (text, want) in [
        // plain
        ("$x", "value"),
        ("${x}", "value"),
        ("a$x.b", "avalue.b"),
        ("$xy", ""),
        ("${x}y", "valuey"),
        ("$unset-", "-"),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("$.", "$."),
        ("$1a", "a"),
        // quotes and escapes
        (r"\$x", "$x"),
        ("'$x'", "$x"),
        (r#""$x""#, "value"),
        (r#""a\"b\\c\d\$x""#, r#"a"b\c\d$x"#),
        (r"'a\b'", r"a\b"),
        (r"a\b", "ab"),
        (r"a\", "a"),
        (r#"a"b c"d"#, "ab cd"),
        ("$d", "'q'"),
        // defaults
        ("${x:-d}", "value"),
        ("${empty:-d}", "d"),
        ("${empty-d}", ""),
        ("${unset:-d}", "d"),
        ("${unset-d}", "d"),
        ("${unset:-$x}", "value"),
        ("${unset:-${empty:-deep}}", "deep"),
        (r"${unset:-a\}b}", "a}b"),
        ("${unset:-'a b'}", "a b"),
        ("${x:+d}", "d"),
        ("${empty:+d}", ""),
        ("${empty+d}", "d"),
        ("${unset+d}", ""),
        ("${x:?no}", "value"),
        ("${unset:?is needed}", "error: unset: is needed"),
        ("${unset?}", "error: unset: is not allowed to be unset"),
        ("${empty:?}", "error: empty: is not allowed to be empty"),
        ("${empty?no}", ""),
        // cutting
        ("${path#*/}", "b/c.tar.gz"),
        ("${path##*/}", "c.tar.gz"),
        ("${path%.*}", "a/b/c.tar"),
        ("${path%%.*}", "a/b/c"),
        ("${path#z}", "a/b/c.tar.gz"),
        ("${path%.g?}", "a/b/c.tar"),
        ("${unset#a}", ""),
        // replacing
        ("${path/b/X}", "a/X/c.tar.gz"),
        (r"${path/\//-}", "a-b/c.tar.gz"),
        (r"${path//\//-}", "a-b-c.tar.gz"),
        ("${path//?.*/-}", "a/b/-"),
        ("${path/q/-}", "a/b/c.tar.gz"),
        // mistakes
        ("${x", "error: a `${` has no `}`"),
        ("${", "error: a `${` has no `}`"),
        ("${}", "error: bad substitution: there is no variable name after `${`"),
        ("${:-a}", "error: bad substitution: there is no variable name after `${`"),
        ("${x:-a", "error: a `${` has no `}`"),
        ("${x!a}", "error: unsupported modifier `!` in `${x…}`"),
        ("${x:a}", "error: unsupported modifier `:a` in `${x…}`"),
        ("'a", "error: a single quote has no matching one"),
        ("\"a", "error: a double quote has no matching one"),
        (r"${x#\q}", r"error: invalid escape `\q` in a pattern"),
    ] {
        assert_eq!(word(text), want, "{text}");
    }
}

#[test]
fn many_words() {
    let lexer = Lexer::new('\\');
    let words = |text: &str| lexer.words(text, &env).unwrap();
    assert_eq!(words("a  b"), ["a", "b"]);
    assert_eq!(words("$words"), ["one", "two"], "white space of a variable cuts");
    assert_eq!(words("\"$words\""), ["one two"]);
    assert_eq!(words("x$words"), ["xone", "two"]);
    assert_eq!(words(r"a\ b"), ["a b"]);
    assert_eq!(words("'' a"), ["", "a"]);
    assert!(words("$unset").is_empty());
}

#[test]
fn other_rules() {
    let raw = Lexer { raw_quotes: true, keep_unset: true, ..Lexer::new('\\') };
    assert_eq!(
        raw.word(r#""$x" '$x' $nope ${nope:-$x} ${nope}"#, &env).unwrap(),
        r#""value" '$x' $nope ${nope:-value} ${nope}"#
    );
    let document = Lexer { plain_quotes: true, ..Lexer::new('\\') };
    assert_eq!(document.word("it's \"$x\" \\$x", &env).unwrap(), "it's \"value\" $x");
    assert_eq!(Lexer::new('`').word(r"c:\$x`$x", &env).unwrap(), r"c:\value$x");
}

#[test]
fn limits() {
    let deep = "${u:-".repeat(10_000) + &"}".repeat(10_000);
    assert!(word(&deep).starts_with("error: substitutions nest deeper"));
    let long = |_: &str| Some("x".repeat(EXPANDED_BYTES_MAX));
    assert!(Lexer::new('\\').word("$a$a", &long).is_err());
    // A pattern that begins to match everywhere and nowhere does.
    let stars = format!("${{a//{}b/c}}", "a*".repeat(100));
    let many = |_: &str| Some("a".repeat(60_000));
    assert_eq!(Lexer::new('\\').word(&stars, &many).unwrap().len(), 60_000);
    let wide = format!("${{a//a/{}}}", "x".repeat(60_000));
    assert!(Lexer::new('\\').word(&wide, &many).is_err());
}

proptest! {
    #[test]
    fn never_panics(text in "[-$a{}:?+#%/*'\"\\\\` \\PC]{0,40}") {
        let _ = Lexer::new('\\').words(&text, &env);
        let _ = Lexer { raw_quotes: true, raw_escapes: true, ..Lexer::new('`') }.word(&text, &env);
    }

    #[test]
    fn text_without_special_characters_is_itself(text in "[a-z0-9/._=-]{1,40}") {
        prop_assert_eq!(word(&text), text);
    }

    #[test]
    fn replacing_agrees_with_trying_every_place(value in "[ab/]{0,8}", pattern in "[ab*?]{1,4}") {
        let compiled = Pattern::parse(&pattern).unwrap();
        let mut want = String::new();
        let mut rest = value.as_str();
        while let Some(first) = rest.chars().next() {
            let left = compiled.cut_front(rest, true).unwrap();
            if left.len() < rest.len() {
                want.push('X');
                rest = &rest[rest.len() - left.len()..];
            } else {
                want.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
        prop_assert_eq!(compiled.replace(&value, "X", true).unwrap(), want);
    }

    #[test]
    fn cutting_agrees_with_trying_all_lengths(value in "[ab/]{0,8}", pattern in "[ab*?]{0,4}") {
        let chars: Vec<char> = value.chars().collect();
        let matches = |text: &[char]| {
            // A plain recursive matcher to compare with.
            fn go(p: &[char], t: &[char]) -> bool {
                match p {
                    [] => t.is_empty(),
                    ['*', rest @ ..] => (0..=t.len()).any(|n| go(rest, &t[n..])),
                    ['?', rest @ ..] => !t.is_empty() && go(rest, &t[1..]),
                    [c, rest @ ..] => t.first() == Some(c) && go(rest, &t[1..]),
                }
            }
            go(&pattern.chars().collect::<Vec<_>>(), text)
        };
        let compiled = Pattern::parse(&pattern).unwrap();
        let shortest = (0..=chars.len()).find(|n| matches(&chars[..*n])).unwrap_or(0);
        let longest = (0..=chars.len()).rev().find(|n| matches(&chars[..*n])).unwrap_or(0);
        prop_assert_eq!(compiled.cut_front(&value, false).unwrap(), chars[shortest..].iter().collect::<String>());
        prop_assert_eq!(compiled.cut_front(&value, true).unwrap(), chars[longest..].iter().collect::<String>());
        let shortest = (0..=chars.len()).rev().find(|n| matches(&chars[*n..])).unwrap_or(chars.len());
        let longest = (0..=chars.len()).find(|n| matches(&chars[*n..])).unwrap_or(chars.len());
        prop_assert_eq!(compiled.cut_back(&value, false).unwrap(), chars[..shortest].iter().collect::<String>());
        prop_assert_eq!(compiled.cut_back(&value, true).unwrap(), chars[..longest].iter().collect::<String>());
    }
}
