//! Whole builds, from a Dockerfile to an image in the content store.

use std::collections::BTreeMap;

use expect_test::expect;
use portolan_builder::{Cancel, ErrorKind, Event};
use portolan_types::media_type;
use portolan_types::oci::ContainerConfig;

use crate::kitchen::{Image, Kitchen};
use crate::support::Tar;

#[test]
fn an_image_of_everything() {
    let kitchen = Kitchen::new();
    kitchen.write("app/main.sh", "echo main\n");
    kitchen.write("app/secret.key", "no\n");
    kitchen.write(".dockerignore", "**/*.key\n");
    let image = kitchen.build(
        r#"
ARG NAME=busybox
FROM ${NAME}
MAINTAINER A. Person
ARG VERSION=1.2
ENV APP_VERSION=$VERSION MODE="a b"
LABEL org.test.version=${APP_VERSION} org.test.mode="$MODE"
WORKDIR /srv
WORKDIR app
COPY app/ ./
RUN echo "$APP_VERSION $FROM_BASE $(pwd)" > made && rm /home/app -r
RUN ["true"]
EXPOSE 80 9000-9001/udp
VOLUME /data
USER app:staff
SHELL ["/bin/sh", "-ec"]
CMD echo $MODE
HEALTHCHECK --interval=30s CMD wget -q localhost
STOPSIGNAL SIGINT
ONBUILD RUN echo triggered
"#,
    );
    expect![[r#"
        L 2020-01-01T00:00:00Z | /bin/sh -c #(nop) ADD busybox
        - 2026-01-02T03:04:05.000000Z | MAINTAINER A. Person
        - 2026-01-02T03:04:05.000000Z | ARG VERSION=1.2
        - 2026-01-02T03:04:05.000000Z | ENV APP_VERSION=1.2 MODE=a b
        - 2026-01-02T03:04:05.000000Z | LABEL org.test.version=1.2 org.test.mode=a b
        L 2026-01-02T03:04:05.000000Z | WORKDIR /srv
        L 2026-01-02T03:04:05.000000Z | WORKDIR /srv/app
        L 2026-01-02T03:04:05.000000Z | COPY app/ ./ # buildkit
        L 2026-01-02T03:04:05.000000Z | RUN |1 VERSION=1.2 /bin/sh -c echo "$APP_VERSION $FROM_BASE $(pwd)" > made && rm /home/app -r # buildkit
        L 2026-01-02T03:04:05.000000Z | RUN |1 VERSION=1.2 true # buildkit
        - 2026-01-02T03:04:05.000000Z | EXPOSE map[80/tcp:{} 9000/udp:{} 9001/udp:{}]
        - 2026-01-02T03:04:05.000000Z | VOLUME [/data]
        - 2026-01-02T03:04:05.000000Z | USER app:staff
        - 2026-01-02T03:04:05.000000Z | SHELL [/bin/sh -ec]
        - 2026-01-02T03:04:05.000000Z | CMD ["/bin/sh" "-ec" "echo $MODE"]
        - 2026-01-02T03:04:05.000000Z | HEALTHCHECK &{["CMD-SHELL" "wget -q localhost"] "30s" "0s" "0s" '\x00'}
        - 2026-01-02T03:04:05.000000Z | STOPSIGNAL SIGINT
    "#]]
    .assert_eq(&image.history());
    expect![[r#"
        {
          "User": "app:staff",
          "ExposedPorts": {
            "80/tcp": {},
            "9000/udp": {},
            "9001/udp": {}
          },
          "Env": [
            "PATH=/bin",
            "FROM_BASE=yes",
            "APP_VERSION=1.2",
            "MODE=a b"
          ],
          "Cmd": [
            "/bin/sh",
            "-ec",
            "echo $MODE"
          ],
          "Healthcheck": {
            "Test": [
              "CMD-SHELL",
              "wget -q localhost"
            ],
            "Interval": 30000000000
          },
          "ArgsEscaped": true,
          "Volumes": {
            "/data": {}
          },
          "WorkingDir": "/srv/app",
          "OnBuild": [
            "RUN echo triggered"
          ],
          "Labels": {
            "org.test.mode": "a b",
            "org.test.version": "1.2"
          },
          "StopSignal": "SIGINT",
          "Shell": [
            "/bin/sh",
            "-ec"
          ]
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&image.config.config).unwrap());
    assert_eq!(image.config.author.as_deref(), Some("A. Person"));
    assert_eq!(image.config.created.as_deref(), Some("2026-01-02T03:04:05.000000Z"));
    assert_eq!(image.files["srv/app/main.sh"], "0:0 644 echo main\n");
    assert_eq!(image.files["srv/app/made"], "0:0 644 1.2 yes /srv/app\n");
    assert!(!image.files.contains_key("srv/app/secret.key"));
    assert!(!image.files.contains_key("home/app"));
    assert_eq!(image.built.base_images.len(), 1);

    // Its triggers run in what is built on it, as in a stage of one file.
    let again = kitchen.build("FROM busybox AS base\nONBUILD RUN echo $X > /t\nFROM base\nENV X=late\nRUN cat /t");
    assert_eq!(again.files["t"], "0:0 644 \n", "triggers come first");
    assert!(again.log.contains("[stage-1 1/2] ONBUILD RUN echo $X > /t"), "{}", again.log);
    assert_eq!(again.config.config.on_build, None);
}

#[test]
fn stages_and_their_copies() {
    let kitchen = Kitchen::new();
    let dockerfile = "\
        FROM busybox AS unused\nRUN exit 1\n\
        FROM busybox AS one\nRUN mkdir /out && echo 1 > /out/one && chown app:staff /out/one\n\
        FROM busybox AS two\nRUN echo 2 > /two\n\
        FROM one AS both\nCOPY --from=two /two /out/two\n\
        FROM scratch\nCOPY --from=both /out /\nCOPY --from=2 --chown=7:8 --chmod=600 /two /owned\nCOPY --from=busybox /etc/group /etc/\nENV A=b";
    let image = kitchen.build(dockerfile);
    expect![[r#"
        {
            "etc": "0:0 755 dir",
            "etc/group": "0:0 644 root:x:0:\napp:x:1001:\nstaff:x:50:other,app\n",
            "one": "1000:50 644 1\n",
            "owned": "7:8 600 2\n",
            "two": "0:0 644 2\n",
        }"#]]
    .assert_eq(&format!("{:#?}", image.files));
    assert_eq!(image.built.layers.len(), 3);
    assert!(!image.log.contains("exit 1"));
    assert_eq!(image.config.config.env.as_deref().unwrap()[1..], ["A=b"]);

    // All of it again: nothing runs, and the image is the very same.
    let again = kitchen.build(dockerfile);
    assert_eq!(again.built.digest, image.built.digest);
    assert_eq!(
        again.cached(),
        again
            .log
            .matches(
                "

#"
            )
            .count()
            - 2,
        "{}",
        again.log
    );

    // A stage in the middle as the target: its layers were not kept, but its snapshot was.
    let mut request = kitchen.request(dockerfile);
    request.target = Some("both".into());
    let both = kitchen.image(kitchen.run(&request));
    assert_eq!(both.files["out/two"], "0:0 644 2\n");
    assert_eq!(both.files["out/one"], "1000:50 644 1\n");
    assert_eq!(both.cached(), 5, "{}", both.log);
}

#[test]
fn what_was_done_is_not_done_again() {
    let mut kitchen = Kitchen::new();
    kitchen.write("a.txt", "a");
    kitchen.write("b.txt", "b");
    let dockerfile = "FROM busybox\nRUN head -c 8 /dev/urandom | od -x > /one 2>/dev/null || date +%s%N > /one\n\
                      COPY a.txt /\nRUN cat /a.txt /one > /two\nCMD two";
    let first = kitchen.build(dockerfile);
    assert_eq!(first.cached(), 0, "{}", first.log);
    let second = kitchen.build(dockerfile);
    assert_eq!(second.cached(), 4, "{}", second.log);
    assert_eq!(second.built.digest, first.built.digest);

    // A file that is not copied does not matter, one that is does.
    kitchen.write("b.txt", "other");
    assert_eq!(kitchen.build(dockerfile).built.digest, first.built.digest);
    kitchen.write("a.txt", "A");
    let changed = kitchen.build(dockerfile);
    assert_eq!(changed.cached(), 2, "{}", changed.log);
    assert_eq!(changed.files["one"], first.files["one"]);
    assert_ne!(changed.files["two"], first.files["two"]);

    // Also after a restart, and when the snapshots are gone, and when a layer is.
    kitchen.restart();
    kitchen.write("a.txt", "a");
    assert_eq!(kitchen.build(dockerfile).built.digest, first.built.digest);
    kitchen.forget_snapshots();
    let cold = kitchen.build(dockerfile);
    assert_eq!((cold.cached(), cold.built.digest), (4, first.built.digest));
    let more = kitchen.build(&format!("{dockerfile}\nRUN cat /two > /three"));
    assert_eq!(more.cached(), 4, "{}", more.log);
    let text = |image: &Image, path: &str| image.files[path].clone();
    assert_eq!(text(&more, "three"), text(&first, "two"));

    // Without the cache everything is new, and counts from then on.
    let mut request = kitchen.request(dockerfile);
    request.no_cache = true;
    let fresh = kitchen.image(kitchen.run(&request));
    assert_eq!(fresh.cached(), 0, "{}", fresh.log);
    assert_ne!(fresh.files["one"], first.files["one"]);
    let after = kitchen.build(dockerfile);
    assert_eq!(after.built.digest, fresh.built.digest);

    // A step is done again when its layer and its snapshot are gone, and so is what stood
    // on it.
    kitchen.forget_snapshots();
    kitchen.content.blobs.lock().unwrap().remove(&fresh.built.layers[1].digest);
    let redone = kitchen.build(dockerfile);
    assert_eq!(redone.cached(), 0, "{}", redone.log);
    assert_ne!(redone.files["two"], fresh.files["two"]);
    assert!(redone.files["two"].ends_with(redone.files["one"].trim_start_matches("0:0 644 ")));
}

#[test]
fn arguments_and_the_cache() {
    let kitchen = Kitchen::new();
    let dockerfile = "FROM busybox\nRUN echo before\nARG WHO=nobody\nRUN echo \"$WHO ${HTTP_PROXY:-direct}\" > /who\nENV WHO=env\nRUN echo $WHO > /env";
    let with = |args: &[(&str, &str)]| {
        let mut request = kitchen.request(dockerfile);
        request.build_args = args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        kitchen.image(kitchen.run(&request))
    };
    let first = with(&[]);
    assert_eq!(first.files["who"], "0:0 644 nobody direct\n");
    assert_eq!(first.files["env"], "0:0 644 env\n");
    assert!(!first.config.config.env.as_deref().unwrap().iter().any(|e| e.starts_with("WHO=nobody")));
    let second = with(&[("WHO", "me"), ("WHO", "us")]);
    assert_eq!(second.files["who"], "0:0 644 us direct\n");
    assert_eq!(second.cached(), 2, "what comes before the ARG stays: {}", second.log);
    // Proxies are there without an ARG and change no key.
    let third = with(&[("WHO", "us"), ("HTTP_PROXY", "http://proxy")]);
    assert_eq!(third.built.digest, second.built.digest);
    assert!(!third.log.contains("warning found"), "{}", third.log);
    let fourth = with(&[("UNKNOWN", "x"), ("ALSO", "y")]);
    assert!(fourth.log.contains(" - One or more build-args [ALSO UNKNOWN] were not consumed"), "{}", fourth.log);
}

#[test]
fn secret_arguments_are_not_shown() {
    let kitchen = Kitchen::new();
    let mut request = kitchen.request(
        "FROM busybox\nARG TOKEN\nRUN echo \"the token is $TOKEN.\" && test ${#TOKEN} = 13\nRUN test ${#TOKEN} = 13 && exit 3",
    );
    request.build_args = vec![("TOKEN".into(), "hunter2secret".into())];
    request.secret_args = vec!["TOKEN".into()];
    let outcome = kitchen.run(&request);
    assert!(outcome.log.contains("the token is ***."), "{}", outcome.log);
    assert!(!outcome.log.contains("hunter2secret"), "{}", outcome.log);
    assert!(!format!("{:?}", outcome.events).contains("hunter2secret"));
    assert!(!format!("{:?}", outcome.result).contains("hunter2secret"));
    assert!(outcome.result.is_err());
    request.dockerfile = b"FROM busybox\nARG TOKEN\nRUN test ${#TOKEN} = 13".to_vec();
    let image = kitchen.image(kitchen.run(&request));
    assert!(!image.history().contains("hunter2secret"), "{}", image.history());
    for record in kitchen.records.0.lock().unwrap().values() {
        assert!(!String::from_utf8_lossy(record).contains("hunter2secret"));
    }
}

#[test]
fn documents_written_in_place() {
    let kitchen = Kitchen::new();
    let image = kitchen.build(
        "FROM busybox\nENV X=1\nCOPY <<EOF <<'RAW' /etc/\nx=$X\nEOF\nx=$X\nRAW\nCOPY --chmod=700 <<-A /one\n\ttabs\nA\n\
         RUN <<S\necho a > /ran\necho b >> /ran\nS\nRUN cat <<D > /read\ntext $X\nD\nRUN <<P\n#!/bin/cat\nP\nUSER app\nRUN <<Q\n#!/bin/sh\nid -u > /tmp/uid\nQ",
    );
    for (path, text) in [
        ("etc/EOF", "0:0 644 x=1\n"),
        ("etc/RAW", "0:0 644 x=$X\n"),
        ("one", "0:0 700 tabs\n"),
        ("ran", "0:0 644 a\nb\n"),
        ("read", "0:0 644 text 1\n"),
        ("tmp/uid", "1000:1001 644 1000\n"),
    ] {
        assert_eq!(image.files[path], text, "{path}");
    }
    assert!(image.log.contains("RUN <<S (echo a > /ran...)"), "{}", image.log);
    assert!(image.log.contains("#!/bin/cat"), "{}", image.log);
}

#[test]
fn working_directories_belong_to_the_user() {
    let kitchen = Kitchen::new();
    let image = kitchen.build("FROM busybox\nRUN ln -s /real /link && mkdir /real\nUSER app\nWORKDIR /link/a/b\nRUN echo x > y && test $(pwd -P) = /real/a/b\nUSER root\nWORKDIR ../c");
    assert_eq!(image.files["real/a"], "1000:1001 755 dir");
    assert_eq!(image.files["real/a/b/y"], "1000:1001 644 x\n");
    assert_eq!(image.config.config.working_dir, "/link/a/c");
    assert_eq!(image.files["real/a/c"], "0:0 755 dir");
}

#[test]
fn failures() {
    let kitchen = Kitchen::new();
    let error = kitchen.fail(
        "FROM busybox\n# hm\nRUN echo fine && \\\n  exit 7\nCMD x",
        expect![[r#"
            Dockerfile:3
            --------------------
               1 |     FROM busybox
               2 |     # hm
               3 | >>> RUN echo fine && \
               4 | >>>   exit 7
               5 |     CMD x
            --------------------
            ERROR: failed to build: Dockerfile:3:1: process "/bin/sh -c echo fine &&   exit 7" did not complete successfully: exit code: 7
        "#]],
    );
    assert_eq!(error.kind, ErrorKind::Step { exit_code: 7 });
    let error = kitchen.fail(
        "FROM busybox\nRNU x",
        expect![[r#"
            Dockerfile:2
            --------------------
               1 |     FROM busybox
               2 | >>> RNU x
            --------------------
            ERROR: failed to build: Dockerfile:2:1: unknown instruction: RNU (did you mean RUN?)
        "#]],
    );
    assert_eq!(error.kind, ErrorKind::Dockerfile);
    kitchen.fail(
        "FROM nothing:1",
        expect![[r#"
            Dockerfile:1
            --------------------
               1 | >>> FROM nothing:1
            --------------------
            ERROR: failed to build: Dockerfile:1:6: docker.io/library/nothing:1: not found
        "#]],
    );
    let error = kitchen.run(&kitchen.request("FROM busybox\nCOPY missing /")).result.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Dockerfile);
    assert!(error.message.starts_with("Dockerfile:2:6: ") && error.message.contains("missing"), "{error}");
    let error = kitchen.run(&kitchen.request("FROM busybox\nUSER nobody-here\nRUN x")).result.unwrap_err();
    assert!(error.message.contains("nobody-here"), "{error}");
    let error = kitchen.run(&kitchen.request("FROM busybox\nRUN [\"/no/such/program\"]")).result.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Step { exit_code: 127 }), "{error:?}");

    // What was done before the failure is kept.
    let good = kitchen.build("FROM busybox\nRUN echo kept > /kept");
    let outcome =
        kitchen.run(&kitchen.request("FROM busybox\nRUN echo kept > /kept\nRUN echo also > /also\nRUN false"));
    assert!(outcome.result.is_err());
    let fixed = kitchen.build("FROM busybox\nRUN echo kept > /kept\nRUN echo also > /also\nRUN true");
    assert_eq!(fixed.cached(), 3, "{}", fixed.log);
    assert_eq!(fixed.built.layers[1], good.built.layers[1]);
}

#[test]
fn a_failure_stops_the_other_stages() {
    let kitchen = Kitchen::new();
    let outcome = kitchen.run(&kitchen.request(
        "FROM busybox AS slow\nRUN sleep 1000\nFROM busybox AS bad\nRUN exit 5\nFROM scratch\nCOPY --from=slow /a /\nCOPY --from=bad /b /",
    ));
    assert_eq!(outcome.result.unwrap_err().kind, ErrorKind::Step { exit_code: 5 });
}

#[test]
fn stages_run_side_by_side() {
    let kitchen = Kitchen::new();
    // Each waits for the other's mark in a folder that both have. One after the other they
    // would never meet.
    let step = |mine: &str, other: &str| {
        format!(
            "RUN --mount=type=cache,id=meet,target=/c touch /c/{mine} && \
             until [ -e /c/{other} ]; do sleep 0.05; done; echo {mine} met {other} > /{mine}\n"
        )
    };
    let dockerfile = format!(
        "FROM busybox AS one\n{}FROM busybox AS two\n{}FROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /",
        step("one", "two"),
        step("two", "one"),
    );
    let image = kitchen.build(&dockerfile);
    assert_eq!(image.files["one"], "0:0 644 one met two\n");
    assert_eq!(image.files["two"], "0:0 644 two met one\n");
}

#[test]
fn cancelling() {
    let kitchen = Kitchen::new();
    let cancel = Cancel::new();
    let request = kitchen.request("FROM busybox\nRUN echo done > /done\nRUN echo now; sleep 1000");
    let outcome = kitchen.run_until(&request, &cancel, &|event| {
        if matches!(event, Event::Output { bytes, .. } if bytes.starts_with(b"now")) {
            cancel.cancel();
        }
    });
    assert_eq!(outcome.result.unwrap_err().kind, ErrorKind::Cancelled);
    assert!(outcome.log.contains("CANCELED"), "{}", outcome.log);
    let again = kitchen.build("FROM busybox\nRUN echo done > /done\nRUN echo now");
    assert_eq!(again.cached(), 2, "what was done is kept: {}", again.log);
    // Cancelled before it began.
    assert_eq!(kitchen.run_until(&request, &cancel, &|_| {}).result.unwrap_err().kind, ErrorKind::Cancelled);
}

#[test]
fn time_runs_out() {
    let mut kitchen = Kitchen::new();
    kitchen.limits.secs_max = Some(1);
    kitchen.restart();
    let outcome = kitchen.run(&kitchen.request("FROM busybox\nRUN sleep 1000"));
    assert_eq!(outcome.result.unwrap_err().kind, ErrorKind::Timeout);
}

#[test]
fn empty_images_and_base_images_of_other_kinds() {
    let kitchen = Kitchen::new();
    // Nothing but a configuration.
    let image = kitchen.build("FROM scratch\nENV A=1\nCMD [\"x\"]");
    assert!(image.built.layers.is_empty());
    expect![[r#"{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","A=1"],"Cmd":["x"],"ArgsEscaped":true,"WorkingDir":"/"}"#]]
        .assert_eq(&serde_json::to_string(&image.config.config).unwrap());

    // An image whose layers have OCI's types and whose history is silent.
    let base = kitchen.shelf.images.lock().unwrap()["docker.io/library/busybox"].clone();
    let mut layer = base.layers[0].clone();
    layer.media_type = media_type::OCI_LAYER_GZIP.into();
    let diff_ids = base.config.rootfs.diff_ids.clone();
    kitchen.shelve("oci", vec![layer.clone()], diff_ids.clone(), ContainerConfig::default());
    kitchen.shelf.images.lock().unwrap().get_mut("docker.io/library/oci").unwrap().config.history.clear();
    let image = kitchen.build("FROM oci\nRUN true");
    assert_eq!(image.built.layers[0].media_type, media_type::DOCKER_LAYER_GZIP);
    assert_eq!(image.config.history.len(), 2);
    // ENTRYPOINT takes an inherited CMD away, CMD of this file stays.
    let image = kitchen.build("FROM busybox\nENTRYPOINT [\"e\"]");
    assert_eq!((image.config.config.cmd, image.config.config.entrypoint), (None, Some(vec!["e".to_owned()])));
    let image = kitchen.build("FROM busybox\nCMD [\"c\"]\nENTRYPOINT e");
    assert_eq!(image.config.config.cmd, Some(vec!["c".to_owned()]));
    let mut request = kitchen.request("FROM busybox\nLABEL a=1 b=2");
    request.labels = vec![("b".into(), "3".into())];
    let image = kitchen.image(kitchen.run(&request));
    assert_eq!(
        image.config.config.labels.unwrap(),
        BTreeMap::from([("a".into(), "1".into()), ("b".into(), "3".into())])
    );
}

#[test]
fn the_log_of_a_build() {
    let kitchen = Kitchen::new();
    kitchen.write("f", "x");
    let shown = |image: Image| -> String {
        image
            .log
            .lines()
            .map(|line| {
                let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
                for word in &mut words {
                    if word.contains("sha256:") {
                        *word = format!("{}sha256:…", word.split("sha256:").next().unwrap());
                    }
                    let number = word.trim_end_matches('s');
                    if number.contains('.') && number.parse::<f64>().is_ok() {
                        *word = word.replace(number, "0.0");
                    }
                }
                words.join(" ") + "\n"
            })
            .collect()
    };
    let dockerfile = "FROM busybox\nENV D=/d\nCOPY f $D\nRUN echo \"out $D\"";
    expect![[r#"
        #1 [internal] load build definition from Dockerfile
        #1 transferring dockerfile: 49B
        #1 DONE 0.0s

        #2 [internal] load metadata for docker.io/library/busybox:latest
        #2 looking on the shelf
        #2 DONE 0.0s

        #3 [1/3] FROM docker.io/library/busybox:latest@sha256:…
        #3 DONE 0.0s

        #4 [2/3] COPY f /d
        #4 DONE 0.0s

        #5 [3/3] RUN echo "out /d"
        #5 0.0 out /d
        #5 DONE 0.0s

        #6 exporting to image
        #6 exporting 3 layers done
        #6 exporting manifest sha256:… done
        #6 exporting config sha256:… done
        #6 DONE 0.0s
    "#]]
    .assert_eq(&shown(kitchen.build(dockerfile)));
    expect![[r#"
        #1 [internal] load build definition from Dockerfile
        #1 transferring dockerfile: 49B
        #1 DONE 0.0s

        #2 [internal] load metadata for docker.io/library/busybox:latest
        #2 looking on the shelf
        #2 DONE 0.0s

        #3 [1/3] FROM docker.io/library/busybox:latest@sha256:…
        #3 CACHED

        #4 [2/3] COPY f /d
        #4 CACHED

        #5 [3/3] RUN echo "out /d"
        #5 CACHED

        #6 exporting to image
        #6 exporting 3 layers done
        #6 exporting manifest sha256:… done
        #6 exporting config sha256:… done
        #6 DONE 0.0s
    "#]]
    .assert_eq(&shown(kitchen.build(dockerfile)));
}

#[test]
fn long_chains_and_many_steps() {
    let kitchen = Kitchen::new();
    let mut chain = "FROM busybox AS s0\nRUN echo > /first\n".to_owned();
    for i in 1..200 {
        chain.push_str(&format!("FROM s{} AS s{i}\nENV A{i}=1\n", i - 1));
    }
    chain.push_str("WORKDIR /last");
    let image = kitchen.build(&chain);
    assert_eq!(image.built.layers.len(), 3);
    assert_eq!(image.config.config.env.unwrap().len(), 2 + 199);

    let copies: String = (1..100).map(|i| format!("FROM scratch AS c{i}\nCOPY --from=c{} /f /f\n", i - 1)).collect();
    let image = kitchen.build(&format!("FROM busybox AS c0\nRUN echo f > /f\n{copies}"));
    assert_eq!(image.files["f"], "0:0 644 f\n");

    let error = kitchen.run(&kitchen.request(&format!("FROM scratch\n{}", "WORKDIR /a\n".repeat(501)))).result;
    assert!(error.unwrap_err().message.contains("more than 500 steps"));
}

#[test]
fn builds_side_by_side() {
    let kitchen = Kitchen::new();
    kitchen.write("f", "text");
    let dockerfile = "FROM busybox AS a\nRUN sleep 0.1; echo a > /a\nFROM busybox\nCOPY f /\nCOPY --from=a /a /\nRUN cat /f /a > /both";
    std::thread::scope(|scope| {
        let builds: Vec<_> = (0..4).map(|_| scope.spawn(|| kitchen.build(dockerfile))).collect();
        for build in builds {
            assert_eq!(build.join().unwrap().files["both"], "0:0 644 texta\n");
        }
    });
    let after = kitchen.build(dockerfile);
    assert_eq!(after.files["both"], "0:0 644 texta\n");
}

#[test]
fn what_is_added_and_ignored() {
    let kitchen = Kitchen::new();
    kitchen.write("keep/a", "a");
    kitchen.write("keep/b.tmp", "b");
    kitchen.write("other/c", "c");
    std::fs::write(kitchen.context().join("x.tar"), Tar::new().file("in/it", 0o640, b"tar").done()).unwrap();
    kitchen.write("sub/Dockerfile.dockerignore", "**/*.tmp\nother\n");
    kitchen.write(".dockerignore", "keep\n");
    let mut request =
        kitchen.request("FROM scratch\nCOPY . /\nADD x.tar /unpacked/\nADD --unpack=false x.tar /packed/");
    request.dockerfile_name = "sub/Dockerfile".into();
    let image = kitchen.image(kitchen.run(&request));
    let files: Vec<&str> = image.files.keys().map(String::as_str).collect();
    assert!(files.contains(&"keep/a") && files.contains(&"packed/x.tar"), "{files:?}");
    assert!(!files.iter().any(|f| f.contains("other") || f.ends_with(".tmp")), "{files:?}");
    assert_eq!(image.files["unpacked/in/it"], "0:0 640 tar");
    assert!(image.history().contains("ADD x.tar /unpacked/ # buildkit"));
    // A file that is there but ignored is not there.
    request.dockerfile = b"FROM scratch\nCOPY other/c /".to_vec();
    assert_eq!(kitchen.run(&request).result.unwrap_err().kind, ErrorKind::Dockerfile);
    request.ignore = Some("[".into());
    let error = kitchen.run(&request).result.unwrap_err();
    assert_eq!(error.message, r#".dockerignore: line 1: pattern "[": a `[` has no `]`"#);
}
