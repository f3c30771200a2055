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
        (
            "FROM",
            expect![[r#"
            Dockerfile:1:1: FROM needs an image (FROM scratch begins with an empty one)
        "#]],
        ),
        (
            "FROM a b",
            expect![[r#"
            Dockerfile:1:1: FROM takes one argument or three (FROM <image> [AS <name>])
        "#]],
        ),
        (
            "FROM a AS 1b",
            expect![[r#"
                Dockerfile:1:11: invalid stage name "1b" (it begins with a letter and has letters, digits, `-`, `_` and `.`)
            "#]],
        ),
        (
            "FROM --plattform=x a",
            expect![[r#"
            Dockerfile:1:6: FROM has no flag --plattform (did you mean --platform?)
        "#]],
        ),
        (
            "RUN x",
            expect![[r#"
                Dockerfile:1:1: RUN before the first FROM (a Dockerfile begins with FROM; only ARG may stand before it)
            "#]],
        ),
        (
            "ARG x",
            expect![[r#"
            Dockerfile:1:1: there is no FROM, so there is nothing to build
        "#]],
        ),
    ] {
        check_file(text, expect);
    }
}

#[test]
fn unknown_instructions() {
    check(
        "\nRNU echo",
        expect![[r#"
        Dockerfile:3:1: unknown instruction: RNU (did you mean RUN?)
    "#]],
    );
    check(
        "copi . .",
        expect![[r#"
        Dockerfile:2:1: unknown instruction: copi (did you mean COPY?)
    "#]],
    );
    check(
        "INCLUDE x",
        expect![[r#"
        Dockerfile:2:1: unknown instruction: INCLUDE
    "#]],
    );
    check(
        "apt-get install x",
        expect![[r#"
        Dockerfile:2:1: unknown instruction: apt-get
    "#]],
    );
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
    check(
        "ENV a",
        expect![[r#"
        Dockerfile:2:1: ENV a has no value (write ENV name=value)
    "#]],
    );
    check(
        "ENV a=b c",
        expect![[r#"
            Dockerfile:2:9: there is no `=` in "c" (write ENV name=value, with quotes around a value that has spaces)
        "#]],
    );
    check(
        "LABEL =x",
        expect![[r#"
        Dockerfile:2:1: LABEL needs a name before the `=`
    "#]],
    );
    check(
        "ARG",
        expect![[r#"
        Dockerfile:2:1: ARG needs at least one argument
    "#]],
    );
}

#[test]
fn command_lines() {
    check(
        "RUN echo \"a  b\"\nRUN [\"a\", \"b c\"]\nCMD [ \"x\" ]\nCMD x y\nENTRYPOINT []\nSHELL [\"/bin/bash\", \"-c\"]\nRUN [ -f x ] && y",
        expect![[r#"
            Run(Run { line: CommandLine { args: ["echo \"a  b\""], shell: true }, documents: [], mounts: [], network: Default, security: Sandbox })
            Run(Run { line: CommandLine { args: ["a", "b c"], shell: false }, documents: [], mounts: [], network: Default, security: Sandbox })
            Cmd(CommandLine { args: ["x"], shell: false })
            Cmd(CommandLine { args: ["x y"], shell: true })
            Entrypoint(CommandLine { args: [], shell: false })
            Shell(["/bin/bash", "-c"])
            Run(Run { line: CommandLine { args: ["[ -f x ] && y"], shell: true }, documents: [], mounts: [], network: Default, security: Sandbox })
        "#]],
    );
    check(
        "CMD [\"a\", 1]",
        expect![[r#"
            Dockerfile:2:5: the JSON form is an array of strings only (put every item in double quotes)
        "#]],
    );
    check(
        "SHELL bash",
        expect![[r#"
            Dockerfile:2:1: SHELL takes the JSON form only (SHELL ["/bin/bash", "-c"])
        "#]],
    );
    check(
        "RUN",
        expect![[r#"
        Dockerfile:2:1: RUN needs a command
    "#]],
    );
    check(
        "RUN --network=none x\nRUN --network=default --security=sandbox y",
        expect![[r#"
            Run(Run { line: CommandLine { args: ["x"], shell: true }, documents: [], mounts: [], network: None, security: Sandbox })
            Run(Run { line: CommandLine { args: ["y"], shell: true }, documents: [], mounts: [], network: Default, security: Sandbox })
        "#]],
    );
    check(
        "RUN --mount=type=cache,target=/root/.cache pip install x",
        expect![[r#"
            Run(Run { line: CommandLine { args: ["pip install x"], shell: true }, documents: [], mounts: [Mount { kind: Cache { id: None, sharing: Shared, from: None, source: None, mode: None, uid: None, gid: None, ro: false }, target: Some("/root/.cache"), text: "type=cache,target=/root/.cache" }], network: Default, security: Sandbox })
        "#]],
    );
    check(
        "RUN --netwrok=none x",
        expect![[r#"
        Dockerfile:2:5: RUN has no flag --netwrok (did you mean --network?)
    "#]],
    );
    check(
        "RUN <<A cat <<B\na\nA\nb\nB",
        expect![[r#"
            Run(Run { line: CommandLine { args: ["<<A cat <<B"], shell: true }, documents: [Document { name: "A", text: "a\n", raw: "a\n", expand: true }, Document { name: "B", text: "b\n", raw: "b\n", expand: true }], mounts: [], network: Default, security: Sandbox })
        "#]],
    );
}

#[test]
fn copies() {
    check(
        "COPY --from=0 --chown=a:b --chmod=755 --link a \"b c\" /d/\nADD [\"a b\", \"c\"]\nCOPY <<-E <<'F' x /d/\n\tone\nE\ntwo\nF\nADD --unpack=false a.tar /",
        expect![[r#"
            Copy(Copy { add: false, unpack: false, unpack_fetched: false, sources: ["a", "\"b c\""], documents: [], dest: "/d/", from: Some("0"), chown: Some("a:b"), chmod: Some("755"), link: true, parents: false, exclude: [], checksum: None, keep_git_dir: false })
            Copy(Copy { add: true, unpack: true, unpack_fetched: false, sources: ["a b"], documents: [], dest: "c", from: None, chown: None, chmod: None, link: false, parents: false, exclude: [], checksum: None, keep_git_dir: false })
            Copy(Copy { add: false, unpack: false, unpack_fetched: false, sources: ["x"], documents: [Document { name: "E", text: "one\n", raw: "\tone\n", expand: true }, Document { name: "F", text: "two\n", raw: "two\n", expand: false }], dest: "/d/", from: None, chown: None, chmod: None, link: false, parents: false, exclude: [], checksum: None, keep_git_dir: false })
            Copy(Copy { add: true, unpack: false, unpack_fetched: false, sources: ["a.tar"], documents: [], dest: "/", from: None, chown: None, chmod: None, link: false, parents: false, exclude: [], checksum: None, keep_git_dir: false })
        "#]],
    );
    for (text, expect) in [
        (
            "COPY x",
            expect![[r#"
            Dockerfile:2:1: COPY needs a source and a destination (COPY <source>… <destination>)
        "#]],
        ),
        (
            "ADD --from=x a b",
            expect![[r#"
                Dockerfile:2:5: ADD has no flag --from (it has --chown, --chmod, --link, --exclude, --checksum, --keep-git-dir, --unpack)
            "#]],
        ),
        (
            "ADD https://x.test/a.tgz /",
            expect![[r#"
                Copy(Copy { add: true, unpack: true, unpack_fetched: false, sources: ["https://x.test/a.tgz"], documents: [], dest: "/", from: None, chown: None, chmod: None, link: false, parents: false, exclude: [], checksum: None, keep_git_dir: false })
            "#]],
        ),
        (
            "COPY https://x.test/a /",
            expect![[r#"
            Dockerfile:2:6: COPY cannot have a URL as its source: https://x.test/a (ADD fetches URLs and git addresses)
        "#]],
        ),
        (
            "COPY --chown a b",
            expect![[r#"
            Dockerfile:2:6: --chown needs a value: --chown=…
        "#]],
        ),
        (
            "COPY --chown=a --chown=b a b",
            expect![[r#"
            Dockerfile:2:6: --chown is given more than once
        "#]],
        ),
        (
            "COPY --link=maybe a b",
            expect![[r#"
                Dockerfile:2:6: --link is true or false, not "maybe"
            "#]],
        ),
        (
            "COPY --parents a b",
            expect![[r#"
                Copy(Copy { add: false, unpack: false, unpack_fetched: false, sources: ["a"], documents: [], dest: "b", from: None, chown: None, chmod: None, link: false, parents: true, exclude: [], checksum: None, keep_git_dir: false })
            "#]],
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
    check(
        "VOLUME [\"\"]",
        expect![[r#"
        Dockerfile:2:1: a VOLUME cannot have an empty path
    "#]],
    );
    check(
        "WORKDIR",
        expect![[r#"
        Dockerfile:2:1: WORKDIR needs an argument
    "#]],
    );
    check(
        "ONBUILD FROM x",
        expect![[r#"
        Dockerfile:2:9: FROM is not allowed as an ONBUILD trigger
    "#]],
    );
    check(
        "ONBUILD ONBUILD RUN x",
        expect![[r#"
        Dockerfile:2:1: ONBUILD ONBUILD is not allowed
    "#]],
    );
    check(
        "ONBUILD CPOY a b",
        expect![[r#"
        Dockerfile:2:9: unknown instruction: CPOY (did you mean COPY?)
    "#]],
    );
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
            expect![[r#"
                Dockerfile:2:13: --interval=1 is not a duration (write a number and a unit, such as 30s, 1m30s or 500ms)
            "#]],
        ),
        (
            "HEALTHCHECK --interval=1us CMD x",
            expect![[r#"
            Dockerfile:2:13: --interval=1us is less than 1ms
        "#]],
        ),
        (
            "HEALTHCHECK --retries=-1 CMD x",
            expect![[r#"
            Dockerfile:2:13: --retries=-1 is not a whole number from 0 up
        "#]],
        ),
        (
            "HEALTHCHECK NONE x",
            expect![[r#"
            Dockerfile:2:1: HEALTHCHECK NONE takes no arguments
        "#]],
        ),
        (
            "HEALTHCHECK CMD",
            expect![[r#"
            Dockerfile:2:1: HEALTHCHECK CMD needs a command
        "#]],
        ),
        (
            "HEALTHCHECK curl x",
            expect![[r#"
                Dockerfile:2:13: HEALTHCHECK curl is unknown (HEALTHCHECK CMD <command>, or HEALTHCHECK NONE)
            "#]],
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

/// What the mounts of a `RUN` mean.
#[test]
fn mounts() {
    check(
        "RUN --mount=target=/a x\nRUN --mount=type=bind,from=b,src=/s,dst=t,rw x\nRUN --mount=type=cache,target=/c,sharing=locked,id=n,mode=0700,uid=1,gid=2,from=b,source=/s,ro x\nRUN --mount=type=tmpfs,target=/t,size=64m x\nRUN --mount=type=secret,id=s,env=S,required,mode=0440 --mount=type=secret,target=/x/key --mount=type=ssh x\nRUN --mount='type=cache,target=/c,\"id=a,b\"' x",
        expect![[r#"
            Run(Run { line: CommandLine { args: ["x"], shell: true }, documents: [], mounts: [Mount { kind: Bind { from: None, source: None, rw: false }, target: Some("/a"), text: "target=/a" }], network: Default, security: Sandbox })
            Run(Run { line: CommandLine { args: ["x"], shell: true }, documents: [], mounts: [Mount { kind: Bind { from: Some("b"), source: Some("/s"), rw: true }, target: Some("t"), text: "type=bind,from=b,src=/s,dst=t,rw" }], network: Default, security: Sandbox })
            Run(Run { line: CommandLine { args: ["x"], shell: true }, documents: [], mounts: [Mount { kind: Cache { id: Some("n"), sharing: Locked, from: Some("b"), source: Some("/s"), mode: Some(448), uid: Some(1), gid: Some(2), ro: true }, target: Some("/c"), text: "type=cache,target=/c,sharing=locked,id=n,mode=0700,uid=1,gid=2,from=b,source=/s,ro" }], network: Default, security: Sandbox })
            Run(Run { line: CommandLine { args: ["x"], shell: true }, documents: [], mounts: [Mount { kind: Tmpfs { size: Some(67108864) }, target: Some("/t"), text: "type=tmpfs,target=/t,size=64m" }], network: Default, security: Sandbox })
            Run(Run { line: CommandLine { args: ["x"], shell: true }, documents: [], mounts: [Mount { kind: Secret { id: "s", required: true, env: Some("S"), mode: Some(288), uid: None, gid: None }, target: None, text: "type=secret,id=s,env=S,required,mode=0440" }, Mount { kind: Secret { id: "key", required: false, env: None, mode: None, uid: None, gid: None }, target: Some("/x/key"), text: "type=secret,target=/x/key" }, Mount { kind: Ssh { id: "default", required: false, mode: None, uid: None, gid: None }, target: None, text: "type=ssh" }], network: Default, security: Sandbox })
            Run(Run { line: CommandLine { args: ["x"], shell: true }, documents: [], mounts: [Mount { kind: Cache { id: Some("a,b"), sharing: Shared, from: None, source: None, mode: None, uid: None, gid: None, ro: false }, target: Some("/c"), text: "type=cache,target=/c,\"id=a,b\"" }], network: Default, security: Sandbox })
        "#]],
    );
    check(
        "RUN --mount=type=cache,id=$N,target=${D:-/c},sharing=$HOW x",
        expect![[r#"
        Run(Run { line: CommandLine { args: ["x"], shell: true }, documents: [], mounts: [Mount { kind: Cache { id: Some("$N"), sharing: Shared, from: None, source: None, mode: None, uid: None, gid: None, ro: false }, target: Some("${D:-/c}"), text: "type=cache,id=$N,target=${D:-/c},sharing=$HOW" }], network: Default, security: Sandbox })
    "#]],
    );
    for (text, expect) in [
        (
            "RUN --mount=type=cahce,target=/a x",
            expect![[r#"
            Dockerfile:2:5: --mount type=cahce is unknown (did you mean cache?)
        "#]],
        ),
        (
            "RUN --mount=type=cache x",
            expect![[r#"
            Dockerfile:2:5: --mount=type=cache needs a target (write target=<path>)
        "#]],
        ),
        (
            "RUN --mount=type=bind,target=/ x",
            expect![[r#"
            Dockerfile:2:5: a --mount cannot have the root folder as its target
        "#]],
        ),
        (
            "RUN --mount=type=secret x",
            expect![[r#"
            Dockerfile:2:5: --mount=type=secret needs an id or a target (write id=<name>)
        "#]],
        ),
        (
            "RUN --mount=type=tmpfs,target=/a,from=b x",
            expect![[r#"
            Dockerfile:2:5: --mount=type=tmpfs has no field "from"
        "#]],
        ),
        (
            "RUN --mount=type=bind,target=/a,size=1g x",
            expect![[r#"
            Dockerfile:2:5: --mount=type=bind has no field "size"
        "#]],
        ),
        (
            "RUN --mount=type=cache,target=/a,sharing=both x",
            expect![[r#"
            Dockerfile:2:5: --mount sharing=both is unknown (it is shared, private or locked)
        "#]],
        ),
        (
            "RUN --mount=type=bind,from=$X,target=/a x",
            expect![[r#"
            Dockerfile:2:5: --mount from= cannot have variables (name the image in a stage of its own, FROM ${IMAGE} AS <name>, and mount from that)
        "#]],
        ),
        (
            "RUN --mount=type=bind,traget=/a x",
            expect![[r#"
            Dockerfile:2:5: --mount has no field "traget" (did you mean target?)
        "#]],
        ),
        (
            "RUN --mount=type=bind,target x",
            expect![[r#"
            Dockerfile:2:5: --mount field "target" needs a value: target=…
        "#]],
        ),
        (
            "RUN --mount=type=cache,target=/a,mode=99 x",
            expect![[r#"
            Dockerfile:2:5: --mount mode=99 is not a mode (write an octal number: 0755)
        "#]],
        ),
        (
            "RUN --mount=type=cache,target=/a,uid=-1 x",
            expect![[r#"
            Dockerfile:2:5: --mount uid=-1 is not a number from 0 up
        "#]],
        ),
        (
            "RUN --mount=type=tmpfs,target=/a,size=many x",
            expect![[r#"
            Dockerfile:2:5: --mount size=many is not a size (write 64m or 1g)
        "#]],
        ),
        (
            "RUN --mount=type=bind,target=/a,rw=perhaps x",
            expect![[r#"
            Dockerfile:2:5: --mount rw=perhaps is neither true nor false
        "#]],
        ),
        (
            "RUN --network=bridge x",
            expect![[r#"
            Dockerfile:2:5: --network=bridge is unknown (it is default, none or host)
        "#]],
        ),
        (
            "RUN --security=none x",
            expect![[r#"
            Dockerfile:2:5: --security=none is unknown (it is sandbox or insecure)
        "#]],
        ),
        (
            "RUN --device=nvidia.com/gpu=all x",
            expect![[r#"
            Dockerfile:2:5: RUN --device is not available here (steps have no devices of the host)
        "#]],
        ),
        (
            "RUN \\\n  --netwrok=none \\\n  x",
            expect![[r#"
            Dockerfile:3:3: RUN has no flag --netwrok (did you mean --network?)
        "#]],
        ),
    ] {
        check(text, expect);
    }
}

#[test]
fn mounts_are_expanded() {
    let mount = |text: &str| {
        let expand = |word: &str| match word.replace("$D", "/d").replace("$HOW", "locked").replace("$N", "n") {
            word if word.contains('$') => Err("no".to_owned()),
            word => Ok(word),
        };
        Mount::read(text).unwrap().expanded(&expand)
    };
    let cache = mount("type=cache,id=$N,target=$D/c,sharing=$HOW").unwrap();
    assert_eq!(cache.target.as_deref(), Some("/d/c"));
    assert!(matches!(cache.kind, MountKind::Cache { id: Some(ref id), sharing: Sharing::Locked, .. } if id == "n"));
    assert_eq!(mount("type=bind,target=$D,from=stage").unwrap().from(), Some("stage"));
    assert!(mount("type=cache,target=$Q").is_err());
    assert!(mount("type=cache,target=/c,sharing=$N").is_err());
    let secret = mount("type=secret,target=$D/token").unwrap();
    assert!(matches!(secret.kind, MountKind::Secret { ref id, .. } if id == "token"));
}

#[test]
fn flags_of_copy_and_add() {
    check(
        "COPY --parents --exclude=*.a --exclude=b/** --chmod=u=rwX,go=rX --link=false a b /d/\nADD --checksum=sha256:00 --keep-git-dir=true --unpack https://x.test/a.git /d/\nADD --link git@x.test:a/b.git#v1:sub /d/",
        expect![[r#"
            Copy(Copy { add: false, unpack: false, unpack_fetched: false, sources: ["a", "b"], documents: [], dest: "/d/", from: None, chown: None, chmod: Some("u=rwX,go=rX"), link: false, parents: true, exclude: ["*.a", "b/**"], checksum: None, keep_git_dir: false })
            Copy(Copy { add: true, unpack: true, unpack_fetched: true, sources: ["https://x.test/a.git"], documents: [], dest: "/d/", from: None, chown: None, chmod: None, link: false, parents: false, exclude: [], checksum: Some("sha256:00"), keep_git_dir: true })
            Copy(Copy { add: true, unpack: true, unpack_fetched: false, sources: ["git@x.test:a/b.git#v1:sub"], documents: [], dest: "/d/", from: None, chown: None, chmod: None, link: true, parents: false, exclude: [], checksum: None, keep_git_dir: false })
        "#]],
    );
    for (text, expect) in [
        (
            "ADD --parents a b",
            expect![[r#"
            Dockerfile:2:5: ADD has no flag --parents (it has --chown, --chmod, --link, --exclude, --checksum, --keep-git-dir, --unpack)
        "#]],
        ),
        (
            "COPY --checksum=sha256:00 a b",
            expect![[r#"
            Dockerfile:2:6: COPY has no flag --checksum (it has --from, --chown, --chmod, --link, --exclude, --parents)
        "#]],
        ),
        (
            "COPY --exclude a b",
            expect![[r#"
            Dockerfile:2:6: --exclude needs a value: --exclude=…
        "#]],
        ),
        (
            "COPY a \\\n  git@x.test:a \\\n  /b/",
            expect![[r#"
            Dockerfile:3:3: COPY cannot have a URL as its source: git@x.test:a (ADD fetches URLs and git addresses)
        "#]],
        ),
    ] {
        check(text, expect);
    }
}
