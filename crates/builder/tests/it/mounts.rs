//! `RUN --mount`, `--network`, `--security`: what a step sees, and who sees it besides.

use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Barrier};

use expect_test::expect;
use portolan_builder::ports::SshAgent;
use portolan_builder::{BuildRequest, BuildSecret, Cancel, ErrorKind, Event, SshForward};
use portolan_types::Secret;

use crate::kitchen::{Image, Kitchen, Outcome};

/// Nothing else here looks like it.
const SECRET: &str = "Fjord-8d1f60b2-Harbour";

fn secret(id: &str, value: &str) -> BuildSecret {
    BuildSecret { id: id.into(), value: Secret::new(value.as_bytes().to_vec()) }
}

impl Kitchen {
    fn with_secret(&self, dockerfile: &str, value: &str) -> BuildRequest {
        BuildRequest { secrets: vec![secret("token", value)], ..self.request(dockerfile) }
    }

    fn build_with(&self, request: &BuildRequest) -> Image {
        self.image(self.run(request))
    }

    /// What of all that this kitchen wrote has `text` in it: layers unpacked, records, files.
    fn traces(&self, text: &str, log: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut look = |name: String, bytes: &[u8]| {
            if bytes.windows(text.len()).any(|w| w == text.as_bytes()) {
                found.push(name);
            }
        };
        look("log".into(), log.as_bytes());
        for (digest, blob) in self.content.blobs.lock().unwrap().iter() {
            let mut plain = Vec::new();
            if flate2::read::GzDecoder::new(&blob[..]).read_to_end(&mut plain).is_err() {
                plain.clone_from(blob);
            }
            look(format!("blob {digest}"), &plain);
        }
        for (key, record) in self.records.0.lock().unwrap().iter() {
            look(format!("record {key}"), record);
        }
        files(&self.state(), &mut look);
        found
    }
}

fn files(dir: &Path, look: &mut impl FnMut(String, &[u8])) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            files(&path, look);
        } else if kind.is_file() {
            look(path.display().to_string(), &std::fs::read(&path).unwrap());
        }
    }
}

#[test]
fn a_bind_shows_the_context_a_stage_or_an_image_and_keeps_nothing() {
    let kitchen = Kitchen::new();
    kitchen.write("src/main.c", "int main\n");
    kitchen.write("src/deep/a.key", "no\n");
    kitchen.write("one file", "alone\n");
    kitchen.write(".dockerignore", "**/*.key\n");
    let image = kitchen.build(
        r#"
FROM busybox AS tools
RUN mkdir /tools && echo tool > /tools/t && ln -s /tools/t /link
FROM busybox
WORKDIR /job
RUN --mount=target=/ctx cd /ctx && find . | sort > /whole
RUN --mount=type=bind,source=src,target=here cat here/main.c > /part && cat /job/here/main.c >> /part
RUN --mount=type=bind,source="one file",target=/x/single cat /x/single > /single
RUN --mount=type=bind,from=tools,source=/tools,target=/t cat /t/t > /stage; echo no > /t/new || echo refused >> /stage
RUN --mount=type=bind,from=tools,source=link,target=/l cat /l > /linked
RUN --mount=type=bind,from=tools,target=/t,rw echo more > /t/tools/new && cat /t/tools/* > /rw
RUN --mount=type=bind,from=tools,target=/t ls /t/tools > /after
RUN --mount=type=bind,from=busybox,source=/etc,target=/e cat /e/passwd | head -n 1 > /image
"#,
    );
    let text = |path: &str| image.files[path].split_once(' ').unwrap().1.split_once(' ').unwrap().1.to_owned();
    assert_eq!(text("whole"), ".\n./.dockerignore\n./one file\n./src\n./src/deep\n./src/main.c\n");
    assert_eq!(text("part"), "int main\nint main\n");
    assert_eq!(text("single"), "alone\n");
    assert_eq!(text("stage"), "tool\nrefused\n");
    assert_eq!(text("linked"), "tool\n");
    assert_eq!(text("rw"), "more\ntool\n");
    assert_eq!(text("after"), "t\n", "what was written to a bind is gone");
    assert_eq!(text("image"), "root:x:0:0:root:/root:/bin/sh\n");
    // Neither the mounts' files nor the places made for them are in the image.
    let left: Vec<&String> =
        image.files.keys().filter(|p| ["ctx", "x", "t", "l", "e", "work/here"].contains(&p.as_str())).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_bind_of_other_files_is_another_step() {
    let kitchen = Kitchen::new();
    kitchen.write("a", "1");
    kitchen.write("b", "1");
    let dockerfile = "FROM busybox\nRUN --mount=source=a,target=/m cat /m > /out\n";
    assert_eq!(kitchen.build(dockerfile).cached(), 0);
    kitchen.write("b", "2");
    assert_eq!(kitchen.build(dockerfile).cached(), 2, "only a is shown");
    kitchen.write("a", "2");
    let image = kitchen.build(dockerfile);
    assert_eq!(image.files["out"], "0:0 644 2");
    let stages = |n: u8| {
        format!(
            "FROM busybox AS s\nRUN echo {n} > /f\nFROM busybox\nRUN --mount=from=s,source=f,target=/m cat /m > /out\n"
        )
    };
    assert_eq!(kitchen.build(&stages(1)).files["out"], "0:0 644 1\n");
    assert_eq!(kitchen.build(&stages(2)).files["out"], "0:0 644 2\n");
    // Forgetting all snapshots forgets the states that binds show.
    let mut kitchen = kitchen;
    kitchen.forget_snapshots();
    let more = format!("{}RUN --mount=from=s,target=/m cat /m/f /out > /more", stages(2));
    assert_eq!(kitchen.build(&more).files["more"], "0:0 644 2\n2\n");
}

#[test]
fn a_bind_that_is_not_there_is_told_with_its_line() {
    let kitchen = Kitchen::new();
    kitchen.fail(
        "FROM busybox\nRUN --mount=type=bind,from=busybox,source=/nowhere,target=/m true\n",
        expect![[r#"
            Dockerfile:2
            --------------------
               1 |     FROM busybox
               2 | >>> RUN --mount=type=bind,from=busybox,source=/nowhere,target=/m true
            --------------------
            ERROR: failed to build: Dockerfile:2:1: /nowhere is not there to mount
        "#]],
    );
    let outcome = kitchen.run(&kitchen.request("FROM busybox AS self\nRUN --mount=from=self,target=/m true"));
    assert_eq!(outcome.result.unwrap_err().kind, ErrorKind::Dockerfile);
    let climbing = "FROM busybox\nRUN --mount=from=busybox,source=../../../../../../etc/machine-id,target=/m true";
    let error = kitchen.run(&kitchen.request(climbing)).result.unwrap_err();
    assert!(error.message.contains("is not there to mount"), "{error}");
}

#[test]
fn a_cache_lasts_and_is_in_no_layer() {
    let mut kitchen = Kitchen::new();
    let step = |n: u8| {
        format!(
            "FROM busybox\nRUN --mount=type=cache,target=/cache,id=c echo {n} >> /cache/f; cat /cache/f > /out; stat -c '%a %u %g' /cache >> /out\n"
        )
    };
    assert_eq!(kitchen.build(&step(1)).files["out"], "0:0 644 1\n755 0 0\n");
    kitchen.restart();
    let image = kitchen.build(&step(2));
    assert_eq!(image.files["out"], "0:0 644 1\n2\n755 0 0\n");
    assert!(!image.files.keys().any(|path| path.starts_with("cache")), "{:?}", image.files.keys());
    // The same step again is not run at all.
    assert_eq!(kitchen.build(&step(2)).cached(), 2);
    // By another id, for another owner, or under another default id it is another cache.
    let of = |flags: &str| {
        kitchen
            .build(&format!(
                "FROM busybox\nRUN --mount=type=cache,{flags} ls /cache > /out; stat -c '%a %u %g' /cache >> /out"
            ))
            .files["out"]
            .clone()
    };
    assert_eq!(of("target=/cache"), "0:0 644 755 0 0\n");
    assert_eq!(of("target=/cache,id=c,uid=1000,gid=1001,mode=0770"), "0:0 644 770 1000 1001\n");
    assert_eq!(of("target=/cache,id=c"), "0:0 644 f\n755 0 0\n");
    // One that is read only, and one that begins with an image's files.
    let image = kitchen.build(
        "FROM busybox\nRUN --mount=type=cache,target=/cache,id=c,ro echo x > /cache/new || cat /cache/f > /out\nRUN --mount=type=cache,target=/c,id=etc,from=busybox,source=/etc cat /c/group | head -n 1 > /from; echo mine > /c/mine\nRUN --mount=type=cache,target=/d,id=etc,from=busybox,source=/etc cat /d/mine >> /from",
    );
    assert_eq!(image.files["out"], "0:0 644 1\n2\n");
    assert_eq!(image.files["from"], "0:0 644 root:x:0:\nmine\n");
}

#[test]
fn a_cache_is_one_tenants_own() {
    let kitchen = Kitchen::new();
    let build = |tenant: &str, line: &str| {
        let dockerfile = format!("FROM busybox\nRUN --mount=type=cache,target=/cache {line}; ls /cache > /out");
        kitchen.build_with(&BuildRequest { tenant: tenant.into(), ..kitchen.request(&dockerfile) }).files["out"].clone()
    };
    assert_eq!(build("1", "echo planted > /cache/index"), "0:0 644 index\n");
    assert_eq!(build("2", "true"), "0:0 644 ", "what one tenant puts into a cache no other finds there");
    assert_eq!(build("1", ":"), "0:0 644 index\n");
}

#[test]
fn steps_share_a_cache_as_they_say() {
    let kitchen = Kitchen::new();
    // A locked one is in one step at a time: each finds what it wrote itself, and a number
    // that nobody else wrote meanwhile.
    let mut dockerfile = String::new();
    for n in 0..4 {
        dockerfile.push_str(&format!(
            "FROM busybox AS s{n}\nRUN --mount=type=cache,target=/c,sharing=locked set -e; test ! -e /c/busy; touch /c/busy; i=0; while [ $i -lt 200 ]; do i=$((i+1)); test -e /c/busy; done; rm /c/busy; echo {n} >> /c/done; cp /c/done /out{n}\n"
        ));
    }
    dockerfile.push_str("FROM busybox\n");
    for n in 0..4 {
        dockerfile.push_str(&format!("COPY --from=s{n} /out{n} /out{n}\n"));
    }
    let image = kitchen.build(&dockerfile);
    let longest = (0..4).map(|n| image.files[&format!("out{n}")].lines().count()).max();
    assert_eq!(longest, Some(4), "all wrote to one");
    // Two steps that use one at the same time: each waits for a sign of the other.
    let both = |sharing: &str| {
        let side = |own: &str, other: &str| {
            format!(
                "FROM busybox AS {own}\nRUN --mount=type=cache,target=/c,id=both,sharing={sharing} touch /c/{own}; i=0; while [ ! -e /c/{other} ] && [ $i -lt 3000 ]; do i=$((i+1)); sleep 0.01; done; ls /c > /{own}\n"
            )
        };
        let dockerfile =
            format!("{}{}FROM busybox\nCOPY --from=a /a /a\nCOPY --from=b /b /b\n", side("a", "b"), side("b", "a"));
        let files = kitchen.build(&dockerfile).files;
        (files["a"].clone(), files["b"].clone())
    };
    assert_eq!(both("shared"), ("0:0 644 a\nb\n".into(), "0:0 644 a\nb\n".into()));
}

#[test]
fn two_mounts_of_one_locked_cache_do_not_wait_for_each_other() {
    let kitchen = Kitchen::new();
    let image = kitchen.build(
        "FROM busybox\nRUN --mount=type=cache,id=x,target=/a,sharing=locked --mount=type=cache,id=x,target=/b,sharing=locked echo 1 > /a/f; cat /b/f > /out",
    );
    assert_eq!(image.files["out"], "0:0 644 1\n");
}

#[test]
fn a_build_that_waits_for_a_cache_can_be_cancelled() {
    let kitchen = Kitchen::new();
    let holding =
        kitchen.request("FROM busybox\nRUN --mount=type=cache,target=/c,sharing=locked echo holding; sleep 1000");
    let waiting = kitchen.request("FROM busybox\nRUN --mount=type=cache,target=/c,sharing=locked echo never");
    let (first, second) = (Cancel::new(), Cancel::new());
    let ready = Barrier::new(2);
    std::thread::scope(|scope| {
        let holder = scope.spawn(|| {
            kitchen.run_until(&holding, &first, &|event| {
                if matches!(event, Event::Output { .. }) {
                    ready.wait();
                }
            })
        });
        ready.wait();
        let outcome = kitchen.run_until(&waiting, &second, &|event| {
            if matches!(event, Event::StepStarted { title, .. } if title.contains("echo never")) {
                second.cancel();
            }
        });
        assert_eq!(outcome.result.unwrap_err().kind, ErrorKind::Cancelled);
        first.cancel();
        assert_eq!(holder.join().unwrap().result.unwrap_err().kind, ErrorKind::Cancelled);
    });
}

#[test]
fn a_cache_is_no_way_round_the_limits_of_the_disk() {
    let mut kitchen = Kitchen::new();
    kitchen.setup = |config| config.disk.step_bytes_max = Some(20 << 20);
    kitchen.restart();
    let fill = |mount: &str, mib: u32| {
        let dockerfile = format!(
            "FROM busybox\nRUN --mount={mount},target=/c dd if=/dev/zero of=/c/f{mib} bs=1M count={mib} 2>/dev/null\n"
        );
        kitchen.run(&kitchen.request(&dockerfile)).result.map(drop).map_err(|error| error.message)
    };
    assert_eq!(fill("type=cache", 15), Ok(()));
    assert_eq!(fill("type=cache", 16), Ok(()), "what was there before is not this step's");
    for mount in ["type=cache", "type=bind,from=busybox,rw"] {
        let refused = fill(mount, 40).unwrap_err();
        assert!(refused.contains("MiB") || refused.contains("bytes") || refused.contains("disk"), "{refused}");
    }
}

#[test]
fn memory_is_bounded_and_gone_after_the_step() {
    let kitchen = Kitchen::new();
    let image = kitchen.build(
        "FROM busybox\nRUN --mount=type=tmpfs,target=/mem,size=1m dd if=/dev/zero of=/mem/f bs=1k count=2000 2>/dev/null || stat -c %s /mem/f > /out\nRUN ls /mem > /after 2>&1 || echo gone >> /after",
    );
    assert_eq!(image.files["out"], "0:0 644 1048576\n");
    assert!(image.files["after"].ends_with("gone\n"), "{}", image.files["after"]);
}

#[test]
fn a_secret_is_a_file_or_a_variable_of_one_step() {
    let kitchen = Kitchen::new();
    let dockerfile = r#"
FROM busybox
RUN --mount=type=secret,id=token stat -c '%a %u %g %s' /run/secrets/token > /file
RUN --mount=type=secret,id=token,target=/etc/t,mode=0440,uid=1000,gid=50 stat -c '%a %u %g' /etc/t > /placed
RUN --mount=type=secret,id=token,env=TOKEN test ! -e /run/secrets/token && echo ${#TOKEN} > /env
RUN --mount=type=secret,id=token,env=TOKEN,target=/t test "$(cat /t)" = "$TOKEN" && echo both > /both
USER app
RUN --mount=type=secret,id=token cat /run/secrets/token 2>/tmp/e || echo refused > /tmp/closed
RUN --mount=type=secret,id=token,uid=1000 cat /run/secrets/token | wc -c > /tmp/open
RUN --mount=type=secret,id=absent ls /run/secrets 2>/tmp/none || echo none >> /tmp/none
RUN env | grep -c TOKEN > /tmp/later || ls /run >> /tmp/later 2>&1 || true
"#;
    let image = kitchen.build_with(&kitchen.with_secret(dockerfile, SECRET));
    let size = SECRET.len();
    assert_eq!(image.files["file"], format!("0:0 644 400 0 0 {size}\n"));
    assert_eq!(image.files["placed"], "0:0 644 440 1000 50\n");
    assert_eq!(image.files["env"], format!("0:0 644 {size}\n"));
    assert_eq!(image.files["both"], "0:0 644 both\n");
    assert_eq!(image.files["tmp/closed"], "1000:1001 644 refused\n");
    assert_eq!(image.files["tmp/open"], format!("1000:1001 644 {size}\n"));
    assert!(image.files["tmp/none"].contains("none"));
    assert!(image.files["tmp/later"].starts_with("1000:1001 644 0\n"), "{}", image.files["tmp/later"]);
    assert!(!image.files.keys().any(|p| p.contains("secrets")), "{:?}", image.files.keys());
    assert_eq!(kitchen.traces(SECRET, &image.log), [] as [String; 0]);
}

#[test]
fn a_secret_is_nowhere_whatever_the_step_says() {
    let kitchen = Kitchen::new();
    let several = format!("first {SECRET}\nsecond line of it\n");
    let dockerfile = r#"
FROM busybox
ARG KEY
RUN --mount=type=secret,id=token cat /run/secrets/token; cat /run/secrets/token >&2; head -c 9 /run/secrets/token; sleep 0.01; tail -c +10 /run/secrets/token
RUN --mount=type=secret,id=token,env=T echo "<$T>"; for c in a; do printf '%s' "$T"; done
RUN echo "$KEY"; printf '%s' "$KEY" | head -c 3; sleep 0.01; printf '%s' "$KEY" | tail -c +4
RUN --mount=type=cache,target=/c true
RUN --mount=type=secret,id=token cat /run/secrets/token /nothing
"#;
    let key = "Quay-5521-Lantern";
    let request = BuildRequest {
        build_args: vec![("KEY".into(), key.into())],
        secret_args: vec!["KEY".into()],
        ..kitchen.with_secret(dockerfile, &several)
    };
    let Outcome { result, log, events } = kitchen.run(&request);
    let error = result.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Step { exit_code: 1 });
    assert!(log.contains("***"), "{log}");
    for text in [SECRET, key, "second line of it"] {
        assert_eq!(kitchen.traces(text, &log), [] as [String; 0], "{log}");
        assert!(!format!("{error:?}{events:?}{request:?}").contains(text));
    }
    // The search finds what is there.
    assert!(!kitchen.traces("exit code: 1", &log).is_empty());
}

#[test]
fn a_secret_is_in_no_key() {
    let kitchen = Kitchen::new();
    let dockerfile = "FROM busybox\nRUN --mount=type=secret,id=token cat /run/secrets/token | wc -c > /n\n";
    assert_eq!(kitchen.build_with(&kitchen.with_secret(dockerfile, "short")).files["n"], "0:0 644 5\n");
    // Another value is no other step: keys know nothing of it.
    let again = kitchen.build_with(&kitchen.with_secret(dockerfile, "much longer"));
    assert_eq!((again.files["n"].as_str(), again.cached()), ("0:0 644 5\n", 2));
    assert_eq!(kitchen.build(dockerfile).cached(), 2, "nor is none at all");
    // One tenant's results are no other's, whatever their keys say.
    let keys: Vec<_> = kitchen.records.0.lock().unwrap().keys().copied().collect();
    assert!(!keys.is_empty());
}

#[test]
fn keys_of_steps_with_secret_arguments_cannot_be_guessed() {
    let keys = |setup: fn(&mut portolan_builder::EngineConfig)| {
        let mut kitchen = Kitchen::new();
        kitchen.setup = setup;
        kitchen.restart();
        let request = BuildRequest {
            build_args: vec![("KEY".into(), "1234".into())],
            secret_args: vec!["KEY".into()],
            ..kitchen
                .request("FROM busybox\nRUN echo plain > /a\nARG KEY\nENV OTHER=x$KEY\nRUN echo $OTHER > /dev/null\n")
        };
        kitchen.build_with(&request);
        let mut keys: Vec<_> = kitchen.records.0.lock().unwrap().keys().copied().collect();
        keys.sort();
        keys
    };
    let (one, two) = (keys(|c| c.key_salt = Secret::new([1; 32])), keys(|c| c.key_salt = Secret::new([2; 32])));
    assert_eq!(one, keys(|c| c.key_salt = Secret::new([1; 32])), "who shares the salt shares the cache");
    let common = one.iter().filter(|key| two.contains(key)).count();
    assert!(common > 0, "a step without secrets has the same key everywhere");
    assert!(common < one.len(), "a key with a secret in it is made of what nobody knows: {common} of {}", one.len());
}

#[test]
fn what_is_required_and_absent_fails_the_step() {
    let kitchen = Kitchen::new();
    kitchen.fail(
        "FROM busybox\nRUN --mount=type=secret,id=npm,required=true true\n",
        expect![[r#"
            Dockerfile:2
            --------------------
               1 |     FROM busybox
               2 | >>> RUN --mount=type=secret,id=npm,required=true true
            --------------------
            ERROR: failed to build: Dockerfile:2:1: the secret npm was not given (pass it with --secret id=npm,src=<file> or --secret id=npm,env=<name>)
        "#]],
    );
    kitchen.fail(
        "FROM busybox\nRUN --mount=type=ssh,required=true true\n",
        expect![[r#"
            Dockerfile:2
            --------------------
               1 |     FROM busybox
               2 | >>> RUN --mount=type=ssh,required=true true
            --------------------
            ERROR: failed to build: Dockerfile:2:1: the ssh agent default was not given (pass it with --ssh default)
        "#]],
    );
    let outcome = kitchen.run(&BuildRequest {
        secrets: vec![BuildSecret { id: "b".into(), value: Secret::new(vec![0xff, 0, 1]) }],
        ..kitchen.request("FROM busybox\nRUN --mount=type=secret,id=b,env=B true")
    });
    assert!(outcome.result.unwrap_err().message.contains("the secret b is no text"));
}

/// Knows of one key, and tells what it was asked.
struct OneKey(std::sync::Mutex<Vec<Vec<u8>>>);

impl SshAgent for OneKey {
    fn ask(&self, message: &[u8], _: &Cancel) -> io::Result<Vec<u8>> {
        self.0.lock().unwrap().push(message.to_vec());
        let mut answer = vec![12, 0, 0, 0, 1];
        for part in [&public_key()[..], b"of a test"] {
            answer.extend_from_slice(&(part.len() as u32).to_be_bytes());
            answer.extend_from_slice(part);
        }
        Ok(answer)
    }
}

/// Of a key that nobody has.
fn public_key() -> Vec<u8> {
    let mut key = b"\0\0\0\x0bssh-ed25519\0\0\0\x20".to_vec();
    key.extend_from_slice(&[9; 32]);
    key
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    assert_eq!(bytes.len() % 3, 0);
    let triples = bytes.chunks(3).map(|c| u32::from(c[0]) << 16 | u32::from(c[1]) << 8 | u32::from(c[2]));
    triples.flat_map(|n| [18, 12, 6, 0].map(|shift| char::from(LETTERS[(n >> shift) as usize & 63]))).collect()
}

impl Kitchen {
    /// Put a program of this machine, with the libraries it needs, into `brought` of the
    /// context, each where it is here.
    fn bring(&self, program: &str) {
        let listed = std::process::Command::new("ldd").arg(program).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let libraries = listed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
        for file in std::iter::once(program).chain(libraries) {
            let to = self.context().join("brought").join(file.trim_start_matches('/').replace("usr/bin", "bin"));
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(file, to).unwrap_or_else(|e| panic!("tests need {file}: {e}"));
        }
    }
}

#[test]
fn an_agent_answers_at_its_socket() {
    let kitchen = Kitchen::new();
    kitchen.bring("/usr/bin/ssh-add");
    let agent = Arc::new(OneKey(std::sync::Mutex::default()));
    let dockerfile = r#"
FROM busybox
COPY brought /
RUN --mount=type=ssh echo $SSH_AUTH_SOCK > /where; stat -c '%F %a %u %g' $SSH_AUTH_SOCK >> /where
RUN --mount=type=ssh ssh-add -L > /keys
RUN --mount=type=ssh,id=default,target=/tmp/s,mode=0666 SSH_AUTH_SOCK=/tmp/s su app -s /bin/sh -c 'ssh-add -D' > /refused 2>&1 || true
RUN --mount=type=ssh su app -s /bin/sh -c 'ssh-add -L' > /closed 2>&1 || true
RUN --mount=type=ssh,id=other ls /run > /none 2>&1; echo "<$SSH_AUTH_SOCK>" >> /none
RUN ls /run/buildkit > /later 2>&1 || echo gone > /later
"#;
    let request = BuildRequest {
        ssh: vec![SshForward { id: "default".into(), agent: agent.clone() }],
        ..kitchen.request(dockerfile)
    };
    let image = kitchen.build_with(&request);
    assert_eq!(image.files["where"], "0:0 644 /run/buildkit/ssh_agent.0\nsocket 600 0 0\n");
    assert_eq!(
        image.files["keys"],
        format!("0:0 644 ssh-ed25519 {} of a test\n", base64(&public_key())),
        "{}",
        image.log
    );
    assert!(image.files["refused"].contains("Failed to remove all identities"), "{}", image.files["refused"]);
    assert!(image.files["closed"].contains("Permission denied"), "{}", image.files["closed"]);
    assert!(image.files["none"].ends_with("<>\n"), "{}", image.files["none"]);
    assert!(image.files["later"].ends_with("gone\n"));
    // `-D` asks for more than that, and none of it got through.
    assert!(agent.0.lock().unwrap().iter().all(|message| matches!(message[..], [11])));
    assert!(!image.files.keys().any(|p| p.contains("agent")));
}

#[test]
fn the_host_s_network_and_more_are_given_only_where_allowed() {
    let mut kitchen = Kitchen::new();
    let network = "FROM busybox\nRUN --network=host readlink /proc/self/ns/net > /net\n";
    let insecure = "FROM busybox\nRUN --security=insecure mkdir /m && mount -t tmpfs none /m && echo mounted > /out && umount /m && rmdir /m\n";
    kitchen.fail(
        network,
        expect![[r#"
            Dockerfile:2
            --------------------
               1 |     FROM busybox
               2 | >>> RUN --network=host readlink /proc/self/ns/net > /net
            --------------------
            ERROR: failed to build: Dockerfile:2:5: RUN --network=host is not allowed on this server (leave the flag out; whoever runs the server allows it with build_allow_host_network)
        "#]],
    );
    let error = kitchen.run(&kitchen.request(insecure)).result.unwrap_err();
    assert!(error.message.contains("RUN --security=insecure is not allowed on this server"), "{error}");
    // Without the flag the same line is refused by the kernel.
    let plain = kitchen.run(&kitchen.request(&insecure.replace("--security=insecure", "")));
    assert!(matches!(plain.result.unwrap_err().kind, ErrorKind::Step { .. }));
    kitchen.setup = |config| {
        config.allow_host_network = true;
        config.allow_insecure = true;
    };
    kitchen.restart();
    let host = std::fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    assert_eq!(kitchen.build(network).files["net"], format!("0:0 644 {host}\n"));
    assert_eq!(kitchen.build(insecure).files["out"], "0:0 644 mounted\n");
    let none = kitchen.build("FROM busybox\nRUN --network=none ip link | grep -c '^[0-9]' > /n\n");
    assert!(["0:0 644 1\n"].contains(&none.files["n"].as_str()), "{}", none.files["n"]);
}

#[test]
fn mounts_take_variables_and_nest() {
    let kitchen = Kitchen::new();
    let image = kitchen.build(
        "FROM busybox\nARG DIR=/data\nENV NAME=inner\nRUN --mount=type=tmpfs,target=$DIR/${NAME} --mount=type=tmpfs,target=${DIR} mkdir -p /data/other; grep -c ' /data' /proc/mounts > /n\n",
    );
    assert_eq!(image.files["n"], "0:0 644 2\n");
    assert!(!image.files.contains_key("data/other"));
}
