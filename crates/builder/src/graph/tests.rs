use expect_test::{Expect, expect};

use super::*;
use crate::error::Source;

/// The stages that are needed, in order, with what they stand on; or the error.
fn check(text: &str, target: Option<&str>, args: &[(&str, &str)], expect: Expect) {
    let resolve = || -> Result<String, Fault> {
        let file = crate::parse::parse(text.as_bytes()).and_then(crate::instruct::read)?;
        let platform: Platform = "linux/arm64".parse().unwrap();
        let arg = |name: &str| args.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let globals = Globals::new(&file, &platform, target, &arg)?;
        let graph = Graph::new(&file, &globals, &platform, target)?;
        let order = graph.reachable(graph.target, &file)?;
        let mut out = String::new();
        for &stage in &order {
            let base = match &graph.bases[stage] {
                Origin::Scratch => "scratch".to_owned(),
                Origin::Image(image) => image.to_string(),
                Origin::Stage(index) => format!("stage {index}"),
                Origin::Files(number) => format!("files {number}"),
            };
            out.push_str(&format!("{stage} {:?} on {base} for {}\n", graph.labels[stage], graph.platforms[stage]));
        }
        for (image, platform, span) in graph.images(&order, &file)? {
            out.push_str(&format!("line {}: {image} for {platform}\n", span.first));
        }
        Ok(out)
    };
    expect.assert_eq(&resolve().unwrap_or_else(|fault| Source::new("Dockerfile", text).sentence(&fault) + "\n"));
}

#[test]
fn only_what_the_target_needs() {
    let file = "FROM go AS build\nFROM build AS test\nRUN x\nFROM debian AS other\n\
                FROM scratch\nCOPY --from=build a b\nCOPY --from=nginx:1 a b";
    check(
        file,
        None,
        &[],
        expect![[r#"
            0 "build" on docker.io/library/go for linux/arm64
            3 "stage-3" on scratch for linux/arm64
            line 1: docker.io/library/go for linux/arm64
            line 7: docker.io/library/nginx:1 for linux/arm64
        "#]],
    );
    check(
        file,
        Some("TEST"),
        &[],
        expect![[r#"
        0 "build" on docker.io/library/go for linux/arm64
        1 "test" on stage 0 for linux/arm64
        line 1: docker.io/library/go for linux/arm64
    "#]],
    );
    check(
        file,
        Some("2"),
        &[],
        expect![[r#"
        2 "other" on docker.io/library/debian for linux/arm64
        line 4: docker.io/library/debian for linux/arm64
    "#]],
    );
    check(
        file,
        Some("tset"),
        &[],
        expect![[r#"
            Dockerfile:1:1: there is no stage "tset" to build (did you mean test?)
        "#]],
    );
}

#[test]
fn arguments_in_from() {
    let file = "ARG TAG=1\nARG NAME=img:${TAG}\nARG EMPTY\nFROM ${NAME}-$TARGETARCH\nFROM --platform=linux/amd64 x:$TAG\nCOPY --from=0 a b";
    check(
        file,
        None,
        &[],
        expect![[r#"
        0 "stage-0" on docker.io/library/img:1-arm64 for linux/arm64
        1 "stage-1" on docker.io/library/x:1 for linux/amd64
        line 4: docker.io/library/img:1-arm64 for linux/arm64
        line 5: docker.io/library/x:1 for linux/amd64
    "#]],
    );
    check(
        file,
        None,
        &[("TAG", "2"), ("UNKNOWN", "x")],
        expect![[r#"
        0 "stage-0" on docker.io/library/img:2-arm64 for linux/arm64
        1 "stage-1" on docker.io/library/x:2 for linux/amd64
        line 4: docker.io/library/img:2-arm64 for linux/arm64
        line 5: docker.io/library/x:2 for linux/amd64
    "#]],
    );
    check(
        "FROM $NOPE",
        None,
        &[],
        expect![[r#"
            Dockerfile:1:6: the image name `$NOPE` is empty once expanded (give the variable a default with ARG before the first FROM, or pass --build-arg)
        "#]],
    );
    check(
        "FROM --platform=wat x",
        None,
        &[],
        expect![[r#"
            Dockerfile:1:17: invalid platform: write os/architecture[/variant], for example linux/amd64
        "#]],
    );
}

#[test]
fn mistakes() {
    check(
        "FROM a\nCOPY --from=3 x y",
        None,
        &[],
        expect![[r#"
            Dockerfile:2:8: there is no stage number 3 (the file has 1 stages, counted from 0)
        "#]],
    );
    check(
        "FROM a\nCOPY --from=$x y z",
        None,
        &[],
        expect![[r#"
            Dockerfile:2:13: --from cannot have variables (name the image in a stage of its own, FROM ${IMAGE} AS <name>, and copy from that)
        "#]],
    );
    check(
        "FROM Builder AS builder",
        None,
        &[],
        expect![[r#"
            Dockerfile:1:6: "Builder" is neither a stage nor an image: invalid repository name: each part between slashes must be lower-case letters and digits, joined by one of `.`, `_`, `__` or dashes
        "#]],
    );
    check(
        "FROM x AS a\nCOPY --from=b x y\nFROM x AS b\nCOPY --from=a x y",
        None,
        &[],
        expect![[r#"
            Dockerfile:2:1: stages need each other: b needs a needs b
        "#]],
    );
    check(
        "FROM x AS a\nCOPY --from=a x y",
        None,
        &[],
        expect![[r#"
            Dockerfile:2:1: a stage cannot copy from itself
        "#]],
    );
    check(
        &"FROM x\n".repeat(STAGES_MAX + 1),
        None,
        &[],
        expect![[r#"
            Dockerfile:257:1: more than 256 stages
        "#]],
    );
}

#[test]
fn triggers_of_a_base_stage_count() {
    check(
        "FROM x AS tools\nFROM x AS base\nONBUILD COPY --from=tools a b\nFROM base",
        None,
        &[],
        expect![[r#"
            1 "base" on docker.io/library/x for linux/arm64
            0 "tools" on docker.io/library/x for linux/arm64
            2 "stage-2" on stage 1 for linux/arm64
            line 2: docker.io/library/x for linux/arm64
        "#]],
    );
}

/// The graph of a file for amd64.
fn graph_of(text: &str) -> Graph {
    let file = crate::parse::parse(text.as_bytes()).and_then(crate::instruct::read).unwrap();
    let platform: Platform = "linux/amd64".parse().unwrap();
    let globals = Globals::new(&file, &platform, None, &|_| None).unwrap();
    Graph::new(&file, &globals, &platform, None).unwrap()
}

#[test]
fn what_mounts_show_is_needed() {
    let text = "FROM a AS one\nFROM b AS two\nFROM c\nRUN --mount=from=one,target=/x --mount=type=cache,from=img:1,target=/y true";
    let file = crate::parse::parse(text.as_bytes()).and_then(crate::instruct::read).unwrap();
    let graph = graph_of(text);
    let reachable = graph.reachable(graph.target, &file).unwrap();
    assert_eq!(reachable, [0, 2]);
    let images: Vec<String> =
        graph.images(&reachable, &file).unwrap().iter().map(|(image, ..)| image.to_string()).collect();
    assert_eq!(images.len(), 3, "{images:?}");
}

#[test]
fn scratch_is_the_empty_image_whatever_a_stage_is_called() {
    let graph = graph_of("FROM a AS scratch\nFROM scratch AS Upper\nFROM UPPER");
    assert_eq!(graph.bases[1], Origin::Scratch);
    assert_eq!(graph.bases[2], Origin::Stage(1));
    assert_eq!(graph.source("scratch", Span { first: 1, last: 1 }).unwrap(), Origin::Scratch);
}

#[test]
fn what_from_does_not_mean() {
    let rules = |text: &str| graph_of(text).findings.iter().map(|f| f.rule.name()).collect::<Vec<_>>();
    assert_eq!(rules("ARG A=1\nFROM x:$A"), [""; 0]);
    assert_eq!(rules("ARG A\nFROM x:${A:-1}"), [""; 0]);
    assert_eq!(rules("FROM x$NOPE"), ["UndefinedArgInFrom"]);
    assert_eq!(rules("ARG A=b\nFROM x AS b\nFROM $A"), [""; 0]);
    assert_eq!(rules("FROM --platform=$BUILDPLATFORM x"), [""; 0]);
}
