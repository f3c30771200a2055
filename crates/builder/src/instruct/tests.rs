use expect_test::{Expect, expect};

use super::*;
use crate::error::Source;

/// What the instructions after `FROM x` mean, one a line; or the error as the log shows it.
fn check(body: &str, expect: Expect) {
    check_file(&format!("FROM x\n{body}"), expect);
}

fn check_file(text: &str, expect: Expect) {
    let shown = match crate::parse::parse(text.as_bytes()).and_then(read) {
        Err(fault) => Source::new("Dockerfile", text).sentence(&fault) + "\n",
        Ok(file) => {
            let mut out = String::new();
            for instruction in &file.global_args {
                out.push_str(&format!("global {:?}\n", instruction.command));
            }
            for stage in &file.stages {
                if file.stages.len() > 1 || stage.instructions.is_empty() {
                    out.push_str(&format!("FROM {} {:?} {:?}\n", stage.base, stage.name, stage.platform));
                }
                stage.instructions.iter().for_each(|i| out.push_str(&format!("{:?}\n", i.command)));
            }
            out
        }
    };
    expect.assert_eq(&shown);
}

#[test]
fn from() {
    check_file(
        "ARG V=1 W\nFROM --platform=$BUILDPLATFORM go:${V} AS Build\nfrom scratch\nARG V",
        expect![[r#"
            global Arg([("V", Some("1")), ("W", None)])
            FROM go:${V} Some("build") Some("$BUILDPLATFORM")
            FROM scratch None None
            Arg([("V", None)])
        "#]],
    );
    for (text, expect) in [
        ("FROM", expect!["Dockerfile:1: FROM needs an image (FROM scratch begins with an empty one)\n"]),
        ("FROM a b", expect!["Dockerfile:1: FROM takes one argument or three (FROM <image> [AS <name>])\n"]),
        (
            "FROM a AS 1b",
            expect![[r#"
            Dockerfile:1: invalid stage name "1b" (it begins with a letter and has letters, digits, `-`, `_` and `.`)
        "#]],
        ),
        ("FROM --plattform=x a", expect!["Dockerfile:1: FROM has no flag --plattform (did you mean --platform?)\n"]),
        (
            "RUN x",
            expect![
                "Dockerfile:1: RUN before the first FROM (a Dockerfile begins with FROM; only ARG may stand before it)\n"
            ],
        ),
        ("ARG x", expect!["Dockerfile:1: there is no FROM, so there is nothing to build\n"]),
    ] {
        check_file(text, expect);
    }
}

#[test]
fn unknown_instructions() {
    check("\nRNU echo", expect!["Dockerfile:3: unknown instruction: RNU (did you mean RUN?)\n"]);
    check("copi . .", expect!["Dockerfile:2: unknown instruction: copi (did you mean COPY?)\n"]);
    check("INCLUDE x", expect!["Dockerfile:2: unknown instruction: INCLUDE\n"]);
    check("apt-get install x", expect!["Dockerfile:2: unknown instruction: apt-get\n"]);
}

#[test]
fn names_and_values() {
    check(
        "ENV a=1 b=\"two words\" c=x\\ y\nENV old  style \"value\"\nLABEL k=v \"with space\"=x\nARG a=1 b c=\"d e\"",
        expect![[r#"
            Env([Pair { key: "a", value: "1" }, Pair { key: "b", value: "\"two words\"" }, Pair { key: "c", value: "x\\ y" }])
            Env([Pair { key: "old", value: "style \"value\"" }])
            Label([Pair { key: "k", value: "v" }, Pair { key: "\"with space\"", value: "x" }])
            Arg([("a", Some("1")), ("b", None), ("c", Some("\"d e\""))])
        "#]],
    );
    check("ENV a", expect!["Dockerfile:2: ENV a has no value (write ENV name=value)\n"]);
    check(
        "ENV a=b c",
        expect![[r#"
        Dockerfile:2: there is no `=` in "c" (write ENV name=value, with quotes around a value that has spaces)
    "#]],
    );
    check("LABEL =x", expect!["Dockerfile:2: LABEL needs a name before the `=`\n"]);
    check("ARG", expect!["Dockerfile:2: ARG needs at least one argument\n"]);
}

#[test]
fn command_lines() {
    check(
        "RUN echo \"a  b\"\nRUN [\"a\", \"b c\"]\nCMD [ \"x\" ]\nCMD x y\nENTRYPOINT []\nSHELL [\"/bin/bash\", \"-c\"]\nRUN [ -f x ] && y",
        expect![[r#"
            Run(Run { line: CommandLine { args: ["echo \"a  b\""], shell: true }, documents: [], network: true })
            Run(Run { line: CommandLine { args: ["a", "b c"], shell: false }, documents: [], network: true })
            Cmd(CommandLine { args: ["x"], shell: false })
            Cmd(CommandLine { args: ["x y"], shell: true })
            Entrypoint(CommandLine { args: [], shell: false })
            Shell(["/bin/bash", "-c"])
            Run(Run { line: CommandLine { args: ["[ -f x ] && y"], shell: true }, documents: [], network: true })
        "#]],
    );
    check(
        "CMD [\"a\", 1]",
        expect!["Dockerfile:2: the JSON form is an array of strings only (put every item in double quotes)\n"],
    );
    check(
        "SHELL bash",
        expect![[r#"
        Dockerfile:2: SHELL takes the JSON form only (SHELL ["/bin/bash", "-c"])
    "#]],
    );
    check("RUN", expect!["Dockerfile:2: RUN needs a command\n"]);
    check(
        "RUN --network=none x\nRUN --network=default --security=sandbox y",
        expect![[r#"
        Run(Run { line: CommandLine { args: ["x"], shell: true }, documents: [], network: false })
        Run(Run { line: CommandLine { args: ["y"], shell: true }, documents: [], network: true })
    "#]],
    );
    check(
        "RUN --mount=type=cache,target=/root/.cache pip install x",
        expect![
            "Dockerfile:2: RUN --mount=type=cache,target=/root/.cache is not available yet (leave the flag out: the step works without the cache)\n"
        ],
    );
    check("RUN --netwrok=none x", expect!["Dockerfile:2: RUN has no flag --netwrok (did you mean --network?)\n"]);
    check(
        "RUN <<A cat <<B\na\nA\nb\nB",
        expect![[r#"
        Run(Run { line: CommandLine { args: ["<<A cat <<B"], shell: true }, documents: [Document { name: "A", text: "a\n", raw: "a\n", expand: true }, Document { name: "B", text: "b\n", raw: "b\n", expand: true }], network: true })
    "#]],
    );
}

#[test]
fn copies() {
    check(
        "COPY --from=0 --chown=a:b --chmod=755 --link a \"b c\" /d/\nADD [\"a b\", \"c\"]\nCOPY <<-E <<'F' x /d/\n\tone\nE\ntwo\nF\nADD --unpack=false a.tar /",
        expect![[r#"
            Copy(Copy { add: false, unpack: false, sources: ["a", "\"b c\""], documents: [], dest: "/d/", from: Some("0"), chown: Some("a:b"), chmod: Some("755") })
            Copy(Copy { add: true, unpack: true, sources: ["a b"], documents: [], dest: "c", from: None, chown: None, chmod: None })
            Copy(Copy { add: false, unpack: false, sources: ["x"], documents: [Document { name: "E", text: "one\n", raw: "\tone\n", expand: true }, Document { name: "F", text: "two\n", raw: "two\n", expand: false }], dest: "/d/", from: None, chown: None, chmod: None })
            Copy(Copy { add: true, unpack: false, sources: ["a.tar"], documents: [], dest: "/", from: None, chown: None, chmod: None })
        "#]],
    );
    for (text, expect) in [
        ("COPY x", expect!["Dockerfile:2: COPY needs a source and a destination (COPY <source>… <destination>)\n"]),
        (
            "ADD --from=x a b",
            expect![
                "Dockerfile:2: ADD has no flag --from (it has --chown, --chmod, --link, --exclude, --checksum, --keep-git-dir, --unpack)\n"
            ],
        ),
        (
            "ADD https://x.test/a.tgz /",
            expect![
                "Dockerfile:2: ADD cannot fetch https://x.test/a.tgz yet (download it in a RUN step, for example RUN wget or RUN curl -fsSLO)\n"
            ],
        ),
        ("COPY https://x.test/a /", expect!["Dockerfile:2: COPY cannot have a URL as its source: https://x.test/a\n"]),
        ("COPY --chown a b", expect!["Dockerfile:2: --chown needs a value: --chown=…\n"]),
        ("COPY --chown=a --chown=b a b", expect!["Dockerfile:2: --chown is given more than once\n"]),
        (
            "COPY --link=maybe a b",
            expect![[r#"
            Dockerfile:2: --link is true or false, not "maybe"
        "#]],
        ),
        (
            "COPY --parents a b",
            expect!["Dockerfile:2: COPY --parents is not available yet (copy each folder to its own destination)\n"],
        ),
    ] {
        check(text, expect);
    }
}

#[test]
fn the_rest() {
    check(
        "EXPOSE 80 90/udp\nVOLUME [\"/a b\", \"/c\"]\nVOLUME /d /e\nUSER me:us\nWORKDIR /a b\nSTOPSIGNAL SIGINT\nMAINTAINER A B <c>\nONBUILD COPY --from=b . .\nONBUILD RUN <<E\nx\nE",
        expect![[r#"
            Expose(["80", "90/udp"])
            Volume(["/a b", "/c"])
            Volume(["/d", "/e"])
            User("me:us")
            Workdir("/a b")
            StopSignal("SIGINT")
            Maintainer("A B <c>")
            Onbuild("COPY --from=b . .")
            Onbuild("RUN <<E\nx\nE")
        "#]],
    );
    check("VOLUME [\"\"]", expect!["Dockerfile:2: a VOLUME cannot have an empty path\n"]);
    check("WORKDIR", expect!["Dockerfile:2: WORKDIR needs an argument\n"]);
    check("ONBUILD FROM x", expect!["Dockerfile:2: FROM is not allowed as an ONBUILD trigger\n"]);
    check("ONBUILD ONBUILD RUN x", expect!["Dockerfile:2: ONBUILD ONBUILD is not allowed\n"]);
    check("ONBUILD CPOY a b", expect!["Dockerfile:2: unknown instruction: CPOY (did you mean COPY?)\n"]);
}

#[test]
fn healthchecks() {
    check(
        "HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=0 --start-interval=1.5s --retries=3 CMD curl x\nHEALTHCHECK CMD [\"a\", \"b\"]\nHEALTHCHECK NONE",
        expect![[r#"
            Healthcheck(Healthcheck { test: ["CMD-SHELL", "curl x"], interval: 90000000000, timeout: 500000000, start_period: 0, start_interval: 1500000000, retries: 3 })
            Healthcheck(Healthcheck { test: ["CMD", "a", "b"], interval: 0, timeout: 0, start_period: 0, start_interval: 0, retries: 0 })
            Healthcheck(Healthcheck { test: ["NONE"], interval: 0, timeout: 0, start_period: 0, start_interval: 0, retries: 0 })
        "#]],
    );
    for (text, expect) in [
        (
            "HEALTHCHECK --interval=1 CMD x",
            expect![
                "Dockerfile:2: --interval=1 is not a duration (write a number and a unit, such as 30s, 1m30s or 500ms)\n"
            ],
        ),
        ("HEALTHCHECK --interval=1us CMD x", expect!["Dockerfile:2: --interval=1us is less than 1ms\n"]),
        ("HEALTHCHECK --retries=-1 CMD x", expect!["Dockerfile:2: --retries=-1 is not a whole number from 0 up\n"]),
        ("HEALTHCHECK NONE x", expect!["Dockerfile:2: HEALTHCHECK NONE takes no arguments\n"]),
        ("HEALTHCHECK CMD", expect!["Dockerfile:2: HEALTHCHECK CMD needs a command\n"]),
        (
            "HEALTHCHECK curl x",
            expect!["Dockerfile:2: HEALTHCHECK curl is unknown (HEALTHCHECK CMD <command>, or HEALTHCHECK NONE)\n"],
        ),
    ] {
        check(text, expect);
    }
}

#[test]
fn excerpts() {
    let source = Source::new("sub/Dockerfile", "FROM x\nRUN a \\\n  b\n\nCMD c\nUSER d\n");
    expect![[r#"
        sub/Dockerfile:2
        --------------------
           1 |     FROM x
           2 | >>> RUN a \
           3 | >>>   b
           4 |
           5 |     CMD c
        --------------------"#]]
    .assert_eq(&source.excerpt(Span { first: 2, last: 3 }));
    // A place that is not there.
    let _ = source.excerpt(Span { first: 0, last: 0 });
    let _ = source.excerpt(Span { first: 90, last: 99 });
}
