use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::error::Source;

/// The nodes, one a line; or the error as the log shows it.
fn check(text: &str, expect: Expect) {
    let shown = match parse(text.as_bytes()) {
        Err(fault) => Source::new("Dockerfile", text).sentence(&fault) + "\n",
        Ok(file) => {
            let mut out = String::new();
            for node in &file.nodes {
                let Span { first, last } = node.span;
                out.push_str(&format!("{first}-{last} {}", node.keyword));
                node.flags.iter().for_each(|f| out.push_str(&format!(" {{{f}}}")));
                out.push_str(&format!(" {:?}\n", node.rest));
                for heredoc in &node.heredocs {
                    let Heredoc { name, expand, chomp, content } = heredoc;
                    out.push_str(&format!("  {name} expand={expand} chomp={chomp} {content:?}\n"));
                }
            }
            for warning in &file.findings {
                out.push_str(&format!("warning {}: {}\n", warning.span.first, warning.message));
            }
            out
        }
    };
    expect.assert_eq(&shown);
}

#[test]
fn lines_comments_and_continuations() {
    check(
        "\u{feff}# a comment\r\nFROM busybox\r\n\r\n  RUN a && \\\r\n  # in between\r\n    b \\   \r\n  && c\r\nCMD [\"x\"]",
        expect![[r#"
            2-2 FROM "busybox"
            4-7 RUN "a &&     b   && c"
            8-8 CMD "[\"x\"]"
        "#]],
    );
    check(
        "FROM x\nRUN a \\\n\n  b\nRUN c\\\\\nRUN d \\",
        expect![[r#"
            1-1 FROM "x"
            2-4 RUN "a   b"
            5-5 RUN "c\\\\"
            6-6 RUN "d"
            warning 4: Empty continuation line
        "#]],
    );
    check(
        "",
        expect![[r#"
            Dockerfile:1:1: the file is empty (a Dockerfile begins with FROM)
        "#]],
    );
    check(
        " \n\t\n",
        expect![[r#"
            Dockerfile:1:2: the file is empty (a Dockerfile begins with FROM)
        "#]],
    );
}

#[test]
fn flags() {
    check(
        "COPY --from=a --chown=\"b c\":d --x\\ y -- --dest /d\nRUN --mount=type=cache,target=/x  -- a --b",
        expect![[r#"
            1-1 COPY {--from=a} {--chown=b c:d} {--x y} "--dest /d"
            2-2 RUN {--mount=type=cache,target=/x} "a --b"
        "#]],
    );
}

#[test]
fn directives() {
    check(
        "# syntax=docker/dockerfile:1.7-labs\n# escape=`\nFROM x\nRUN a `\n  b\nCOPY c:\\d \\",
        expect![[r#"
            3-3 FROM "x"
            4-5 RUN "a   b"
            6-6 COPY "c:\\d \\"
        "#]],
    );
    check(
        "# Escape = \\\n#check=skip=all\n# other=1\n#escape=`\nFROM x",
        expect![[r#"
            Dockerfile:4:1: only one escape parser directive can be used
        "#]],
    );
    check(
        "# a comment\n# escape=`\nFROM x\\\ny",
        expect![[r#"
        3-4 FROM "xy"
    "#]],
    );
    check(
        "#escape=x\nFROM x",
        expect![[r#"
            Dockerfile:1:9: invalid escape character "x" (it can be a backslash or a backtick)
        "#]],
    );
    check(
        "# syntax=mirror.example:5000/docker/dockerfile-upstream:master@sha256:abc\nFROM x",
        expect![[r#"
        2-2 FROM "x"
    "#]],
    );
    check(
        "# syntax=example/other:1\nFROM x",
        expect![[r#"
            Dockerfile:1:10: the syntax "example/other:1" is not available here (the current docker/dockerfile syntax is built in and other frontends are not run: remove the line or write docker/dockerfile:1)
        "#]],
    );
}

#[test]
fn heredocs() {
    check(
        "FROM x\nRUN <<EOF\n  a \\\n# kept\nEOF\nCOPY <<-\"A\" <<'B C' /d/\n\tone\n\tA\ntwo\nB C\nRUN cat <<E 3<<F && x\n1\nE\n2\nF\nRUN [\"a\", \"<<X\"]\nRUN a <<< b\nENV a=<<b",
        expect![[r##"
            1-1 FROM "x"
            2-5 RUN "<<EOF"
              EOF expand=true chomp=false "  a \\\n# kept\n"
            6-10 COPY "<<-\"A\" <<'B C' /d/"
              A expand=false chomp=true "\tone\n"
              B C expand=false chomp=false "two\n"
            11-15 RUN "cat <<E 3<<F && x"
              E expand=true chomp=false "1\n"
              F expand=true chomp=false "2\n"
            16-16 RUN "[\"a\", \"<<X\"]"
            17-17 RUN "a <<< b"
            18-18 ENV "a=<<b"
        "##]],
    );
    check(
        "FROM x\nRUN <<EOF\nabc\n",
        expect![[r#"
            Dockerfile:2:7: the here-document `EOF` has no end (write EOF on a line of its own after the text)
        "#]],
    );
    check(
        "ONBUILD RUN <<E\na\nE\nONBUILD ONBUILD RUN <<E",
        expect![[r#"
        1-3 ONBUILD "RUN <<E"
          E expand=true chomp=false "a\n"
        4-4 ONBUILD "ONBUILD RUN <<E"
    "#]],
    );
}

#[test]
fn splitting_words() {
    for (text, want) in [
        ("a b", vec!["a", "b"]),
        (r#"a="b c" d='e "f'"#, vec![r#"a="b c""#, r#"d='e "f'"#]),
        (r"a=b\ c d", vec![r"a=b\ c", "d"]),
        (r#"a="b\" c" d"#, vec![r#"a="b\" c""#, "d"]),
        (r"a='b\' c", vec![r"a='b\'", "c"]),
        (r"a\", vec!["a"]),
        ("  ", vec![]),
    ] {
        assert_eq!(words(text, '\\'), want, "{text}");
    }
}

#[test]
fn broken_text() {
    let fault = parse(b"FROM x\nRUN \xff\n").unwrap_err();
    assert_eq!((fault.span.first, fault.message.as_str()), (2, "the file is not UTF-8 text"));
    assert!(parse(&vec![b'#'; limits::DOCKERFILE_BYTES_MAX + 1]).is_err());
}

proptest! {
    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes).map(crate::instruct::read);
    }

    #[test]
    fn never_panics_on_what_looks_like_one(lines in prop::collection::vec(
        "(FROM|RUN|COPY|ADD|ENV|ARG|ONBUILD|CMD|HEALTHCHECK|LABEL|EXPOSE|# escape=`|#|EOF|\\PC)?[ -~]{0,30}(\\\\|`|<<EOF|<<-'E'|)", 0..12))
    {
        let text = lines.join("\n");
        let _ = parse(text.as_bytes()).map(crate::instruct::read);
    }
}
