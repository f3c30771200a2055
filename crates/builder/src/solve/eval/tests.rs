use expect_test::{Expect, expect};

use super::*;
use crate::error::Source;

/// What the last stage of a file amounts to; or the error as the log shows it. Stages may
/// stand on scratch or on each other.
fn evaluate(text: &str, args: &[(&str, &str)]) -> Result<Stage, String> {
    let sentence = |fault: Fault| Source::new("Dockerfile", text).sentence(&fault);
    let file = crate::parse::parse(text.as_bytes()).and_then(crate::instruct::read).map_err(sentence)?;
    let args: Vec<(String, String)> = args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let arg = |name: &str| args.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let platform: Platform = "linux/arm64/v8".parse().unwrap();
    let globals = Globals::new(&file, &platform, None, &arg).map_err(sentence)?;
    let inputs = Inputs {
        globals: &globals,
        escape: file.escape,
        build_args: &args,
        blots: &crate::solve::blot::Blots::default(),
        allowed: crate::solve::eval::Allowed::default(),
        cancel: &crate::cancel::Cancel::new(),
        source: &|_, _| Ok(Origin::Scratch),
    };
    let mut done: Vec<(Option<String>, Stage)> = Vec::new();
    for stage in &file.stages {
        let base = done.iter().find(|(name, _)| name.as_ref() == Some(&stage.base));
        let begin = base.map_or(Begin::Scratch, |(_, base)| Begin::Stage(base));
        let label = stage.name.clone().unwrap_or_default();
        let result = Eval::begin(&inputs, &label, &platform, &begin).run(&[], &stage.instructions).map_err(sentence)?;
        done.push((stage.name.clone(), result));
    }
    Ok(done.pop().unwrap().1)
}

fn check(text: &str, args: &[(&str, &str)], expect: Expect) {
    let shown = match evaluate(text, args) {
        Err(error) => error + "\n",
        Ok(stage) => {
            let mut out = String::new();
            for step in &stage.steps {
                out.push_str(&format!("{}\n", step.title));
                match &step.op {
                    Op::Mkdir { path, user } => out.push_str(&format!("  mkdir {path} {user:?}\n")),
                    Op::Copy(c) => out.push_str(&format!("  copy {:?} {:?} to {}\n", c.sources, c.documents, c.dest)),
                    Op::Run(r) => {
                        let env: Vec<String> =
                            r.env.iter().chain(&r.extra_env).skip(1).map(|(k, v)| format!("{k}={v}")).collect();
                        out.push_str(&format!("  run {:?} in {} as {:?} with {env:?}\n", r.argv, r.cwd, r.user));
                    }
                }
            }
            for entry in &stage.image.history {
                out.push_str(&format!("{}\n", entry.created_by.as_deref().unwrap_or_default()));
            }
            out
        }
    };
    expect.assert_eq(&shown);
}

#[test]
fn variables() {
    // All of one ENV see what was before it; ARG in one line see each other; the last one
    // set counts, ENV or ARG, as in BuildKit.
    check(
        "FROM scratch\nENV a=1\nENV a=2 b=$a\nARG c=$b d=${c}x\nARG a=arg\nENV c=env\nRUN x",
        &[("unused", "1")],
        expect![[r#"
            [1/1] RUN x
              run ["/bin/sh", "-c", "x"] in / as "" with ["a=arg", "b=1", "c=env", "d=1x"]
            ENV a=1
            ENV a=2 b=1
            ARG c=1 d=1x
            ARG a=arg
            ENV c=env
            RUN |3 c=env d=1x a=arg /bin/sh -c x # buildkit
        "#]],
    );
    check(
        "ARG V=global\nARG W=global\nFROM scratch\nARG V\nARG W=local X\nARG TARGETPLATFORM TARGETVARIANT\nRUN $V ${Y:-none} '$W' \\$V",
        &[("X", "given")],
        expect![[r#"
            [1/1] RUN global ${Y:-none} '$W' \$V
              run ["/bin/sh", "-c", "$V ${Y:-none} '$W' \\$V"] in / as "" with ["V=global", "W=local", "X=given", "TARGETPLATFORM=linux/arm64/v8", "TARGETVARIANT=v8"]
            ARG V=global
            ARG W=local X=given
            ARG TARGETPLATFORM=linux/arm64/v8 TARGETVARIANT=v8
            RUN |5 V=global W=local X=given TARGETPLATFORM=linux/arm64/v8 TARGETVARIANT=v8 /bin/sh -c $V ${Y:-none} '$W' \$V # buildkit
        "#]],
    );
    // A stage has the arguments of the stage it stands on; another has not.
    check(
        "FROM scratch AS a\nARG X=1\nENV E=$X\nFROM a\nRUN x\nFROM scratch\nARG X\nRUN y",
        &[],
        expect![[r#"
            [1/1] RUN y
              run ["/bin/sh", "-c", "y"] in / as "" with []
            ARG X
            RUN |1 X= /bin/sh -c y # buildkit
        "#]],
    );
    check(
        "FROM scratch AS a\nARG X=1\nENV E=$X\nFROM a\nRUN x",
        &[("http_proxy", "p")],
        expect![[r#"
            [1/1] RUN x
              run ["/bin/sh", "-c", "x"] in / as "" with ["X=1", "E=1", "http_proxy=p"]
            ARG X=1
            ENV E=1
            RUN |1 X=1 /bin/sh -c x # buildkit
        "#]],
    );
    check(
        "FROM scratch\nENV a=\"${b:?is not set}\"",
        &[],
        expect![[r#"
            Dockerfile:2:7: b: is not set
        "#]],
    );
    check(
        "FROM scratch\nENV \"\"=x",
        &[],
        expect![[r#"
            Dockerfile:2:1: the name "\"\"" is empty once expanded
        "#]],
    );
}

#[test]
fn directories_and_destinations() {
    check(
        "FROM scratch\nENV D=/x N=app\nWORKDIR $D\nWORKDIR ../y/./z\nUSER $N:1\nWORKDIR rel\nCOPY a .\nCOPY a b ../dir/\nCOPY [\"a b\", \"$N\"]\nCOPY $N /\nCOPY a /c/.\nWORKDIR /\nADD a \"b c\"",
        &[],
        expect![[r#"
            [ 1/10] WORKDIR /x
              mkdir /x ""
            [ 2/10] WORKDIR ../y/./z
              mkdir /y/z ""
            [ 3/10] WORKDIR rel
              mkdir /y/z/rel "app:1"
            [ 4/10] COPY a .
              copy ["a"] [] to /y/z/rel/
            [ 5/10] COPY a b ../dir/
              copy ["a", "b"] [] to /y/z/dir/
            [ 6/10] COPY [a b, app]
              copy ["a b"] [] to /y/z/rel/app
            [ 7/10] COPY app /
              copy ["app"] [] to /
            [ 8/10] COPY a /c/.
              copy ["a"] [] to /c/
            [ 9/10] ADD a b c
              copy ["a"] [] to /b c
            ENV D=/x N=app
            WORKDIR /x
            WORKDIR /y/z
            USER app:1
            WORKDIR /y/z/rel
            COPY a . # buildkit
            COPY a b ../dir/ # buildkit
            COPY a b app # buildkit
            COPY app / # buildkit
            COPY a /c/. # buildkit
            WORKDIR /
            ADD a b c # buildkit
        "#]],
    );
    check(
        "FROM scratch\nCOPY a b c",
        &[],
        expect![[r#"
            Dockerfile:2:10: several sources need a directory as destination, not "c" (write c/)
        "#]],
    );
    check(
        "FROM scratch\nCOPY --chmod=rwx a b",
        &[],
        expect![[r#"
            Dockerfile:2:6: --chmod=rwx is not a mode (write an octal number such as 755, or letters such as u=rwX,go=rX)
        "#]],
    );
    check(
        "FROM scratch\nCOPY --chmod=17777 a b",
        &[],
        expect![[r#"
            Dockerfile:2:6: --chmod=17777 is not a mode (write an octal number such as 755, or letters such as u=rwX,go=rX)
        "#]],
    );
}

#[test]
fn ports_signals_users() {
    check(
        "FROM scratch\nENV P=\"80 90\" R=1-3\nEXPOSE $P $R/UDP 127.0.0.1:8080:81",
        &[],
        expect![[r#"
        ENV P=80 90 R=1-3
        EXPOSE map[1/udp:{} 2/udp:{} 3/udp:{} 80/tcp:{} 81/tcp:{} 90/tcp:{}]
    "#]],
    );
    for (line, expect) in [
        (
            "EXPOSE 70000",
            expect![[r#"
                Dockerfile:2:8: "70000" is not a port (a number from 0 to 65535 or a range of them, with /tcp, /udp or /sctp after it)
            "#]],
        ),
        (
            "EXPOSE 9-8",
            expect![[r#"
                Dockerfile:2:8: "9-8" is not a port (a number from 0 to 65535 or a range of them, with /tcp, /udp or /sctp after it)
            "#]],
        ),
        (
            "EXPOSE 80/http",
            expect![[r#"
                Dockerfile:2:8: "80/http" is not a port (a number from 0 to 65535 or a range of them, with /tcp, /udp or /sctp after it)
            "#]],
        ),
        (
            "STOPSIGNAL HALT",
            expect![[r#"
                Dockerfile:2:12: unknown signal "HALT" (a name such as SIGTERM, or a number)
            "#]],
        ),
        (
            "STOPSIGNAL SIGRTMIN+3",
            expect![[r#"
            STOPSIGNAL SIGRTMIN+3
        "#]],
        ),
        (
            "USER $NOBODY",
            expect![[r#"
                Dockerfile:2:1: USER is empty once expanded
            "#]],
        ),
        (
            "VOLUME /a $NONE",
            expect![[r#"
                Dockerfile:2:1: a VOLUME is empty once expanded
            "#]],
        ),
    ] {
        check(&format!("FROM scratch\n{line}"), &[], expect);
    }
}

#[test]
fn shells_and_documents() {
    check(
        "FROM scratch\nENV X=1\nRUN a\nSHELL [\"bash\", \"-ec\"]\nRUN b\nRUN [\"c\", \"$X\"]\nRUN <<E\nd\ne\nE\nRUN cat <<-A <<B\n\t$X\nA\nb\nB\nCOPY <<C <<'D' /\n\\$X \"$X\"\nC\n$X\nD\nCMD c\nENTRYPOINT [\"e\", \"f\\\"g\"]",
        &[],
        expect![[r##"
            [1/6] RUN a
              run ["/bin/sh", "-c", "a"] in / as "" with ["X=1"]
            [2/6] RUN b
              run ["bash", "-ec", "b"] in / as "" with ["X=1"]
            [3/6] RUN ["c", "1"]
              run ["c", "$X"] in / as "" with ["X=1"]
            [4/6] RUN <<E (d...)
              run ["bash", "-ec", "d\ne\n"] in / as "" with ["X=1"]
            [5/6] RUN cat <<-A <<B
              run ["bash", "-ec", "cat <<-A <<B\n\t$X\nA\nb\nB"] in / as "" with ["X=1"]
            [6/6] COPY <<C <<D /
              copy [] [("C", "$X \"1\"\n"), ("D", "$X\n")] to /
            ENV X=1
            RUN /bin/sh -c a # buildkit
            SHELL [bash -ec]
            RUN bash -ec b # buildkit
            RUN c $X # buildkit
            RUN bash -ec d
            e
             # buildkit
            RUN bash -ec cat <<-A <<B
            	$X
            A
            b
            B # buildkit
            COPY <<C <<D / # buildkit
            CMD ["bash" "-ec" "c"]
            ENTRYPOINT ["e" "f\"g"]
        "##]],
    );
}

#[test]
fn an_entrypoint_resets_what_was_inherited_only() {
    let cmd = |text: &str| evaluate(text, &[]).unwrap().image.config.cmd;
    assert_eq!(cmd("FROM scratch AS a\nCMD [\"x\"]\nFROM a\nENTRYPOINT [\"y\"]"), None);
    assert_eq!(cmd("FROM scratch\nCMD [\"x\"]\nENTRYPOINT [\"y\"]"), Some(vec!["x".to_owned()]));
    assert_eq!(cmd("FROM scratch AS a\nCMD [\"x\"]\nFROM a\nRUN z"), Some(vec!["x".to_owned()]));
}
