//! The language as whole builds have it: flags of `COPY`, build checks, directives.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::{Arc, Mutex};

use portolan_builder::ports::{RemoteFile, RemoteTree, Remotes};
use portolan_builder::remote::GitSource;
use portolan_builder::{BuildRequest, ErrorKind};
use portolan_types::Digest;
use portolan_types::oci::ContainerConfig;

use crate::kitchen::Kitchen;
use crate::support::Tar;

/// The warnings of a build, without what the log has before them.
fn warnings(log: &str) -> Vec<&str> {
    log.lines().filter_map(|line| line.strip_prefix("WARNING: ").or_else(|| line.strip_prefix(" - "))).collect()
}

#[test]
fn copy_keeps_parents_and_leaves_out() {
    let kitchen = Kitchen::new();
    for path in ["x/a.txt", "x/b.md", "x/y/c.txt", "z/a.txt"] {
        kitchen.write(path, path);
    }
    let image = kitchen.build(
        "FROM scratch AS from\nCOPY x /src/x\nFROM scratch\nARG KIND=md\nCOPY --parents x/a.txt ./x/./y /p/\n\
         COPY --exclude=*.$KIND --exclude=y x /e/\nCOPY --from=from --parents /src/./x/**/*.txt /f/\n\
         ADD --exclude=**/*.txt . /g/",
    );
    let files: Vec<&str> =
        image.files.iter().filter(|(_, what)| !what.ends_with("dir")).map(|(p, _)| p.as_str()).collect();
    assert_eq!(files, ["e/a.txt", "f/x/a.txt", "f/x/y/c.txt", "g/x/b.md", "p/x/a.txt", "p/y/c.txt"]);
    assert!(image.history().contains("COPY --parents x/a.txt ./x/./y /p/ # buildkit"), "{}", image.history());
    // What is left out does not count.
    kitchen.write("x/new.md", "n");
    let again = kitchen.build("FROM scratch\nCOPY --exclude=*.md x /e/");
    kitchen.write("x/newer.md", "n");
    let cached = kitchen.build("FROM scratch\nCOPY --exclude=*.md x /e/");
    assert_eq!((again.cached(), cached.cached()), (0, 1), "{}", cached.log);
}

#[test]
fn copy_with_modes_in_letters() {
    let kitchen = Kitchen::new();
    kitchen.write("bin/tool", "t");
    kitchen.write("bin/data", "d");
    std::fs::set_permissions(kitchen.context().join("bin/tool"), PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::set_permissions(kitchen.context().join("bin/data"), PermissionsExt::from_mode(0o600)).unwrap();
    let image =
        kitchen.build("FROM scratch\nARG M=u=rwX,go=rX\nCOPY --chmod=$M bin /b/\nCOPY --chmod=a+x <<E /h\ntext\nE");
    assert_eq!(image.files["b/tool"], "0:0 755 t");
    assert_eq!(image.files["b/data"], "0:0 644 d");
    assert_eq!(image.files["h"], "0:0 755 text\n");
}

#[test]
fn a_linked_copy_does_not_look_at_what_is_below() {
    let kitchen = Kitchen::new();
    kitchen.write("f", "new");
    let prepare =
        "FROM busybox\nRUN mkdir -p /real/sub /keep && echo old > /keep/old && chmod 700 /keep && ln -s /real /link";
    let plain = kitchen.build(&format!("{prepare}\nCOPY f /link/sub/\nCOPY --chown=app f /keep/"));
    assert_eq!(plain.files["real/sub/f"], "0:0 644 new");
    let linked = kitchen.build(&format!("{prepare}\nCOPY --link f /link/sub/\nCOPY --link --chown=app f /keep/\nRUN cat /keep/old /link/sub/f /keep/f > /all"));
    // The link gives way, what is beside stays, names are still the image's.
    assert_eq!(linked.files["link/sub/f"], "0:0 644 new");
    assert!(!linked.files.contains_key("real/sub/f"));
    assert_eq!(linked.files["keep/f"], "1000:1001 644 new");
    assert_eq!(linked.files["all"], "0:0 644 old\nnewnew");
}

#[test]
fn links_cannot_lead_a_linked_copy_outside() {
    let kitchen = Kitchen::new();
    kitchen.write("f", "new");
    kitchen.write("dir/x", "x");
    symlink("/etc", kitchen.context().join("dir/out")).unwrap();
    let image = kitchen.build("FROM scratch\nCOPY dir /d/\nCOPY --link f /d/out/f2");
    assert_eq!(image.files["d/out/f2"], "0:0 644 new");
    assert!(!std::path::Path::new("/etc/f2").exists());
}

#[test]
fn checks_are_warnings() {
    let kitchen = Kitchen::new();
    kitchen.write("hidden", "h");
    kitchen.write(".dockerignore", "hidden");
    kitchen.write("seen", "s");
    let text = "FROM busybox as Base\nENV a b\nWORKDIR rel\nARG API_TOKEN\nCMD x\nCMD y\nCOPY seen /$NOWHERE/$API_TOKEN/\nEXPOSE 80/TCP 127.0.0.1:80:80\nLABEL p=$PTH";
    let outcome = kitchen.run(&kitchen.request(text));
    outcome.result.as_ref().unwrap();
    assert_eq!(
        warnings(&outcome.log),
        [
            "StageNameCasing: Stage name 'Base' should be lowercase (line 1)",
            "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)",
            "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 2)",
            "WorkdirRelativePath: Relative workdir \"rel\" can have unexpected results if the base image changes (line 3)",
            "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"API_TOKEN\") (line 4)",
            "JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line 5)",
            "MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used (line 5)",
            "JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line 6)",
            "UndefinedVar: Usage of undefined variable '$NOWHERE' (line 7)",
            "ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase (line 8)",
            "ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80' (line 8)",
            "UndefinedVar: Usage of undefined variable '$PTH' (did you mean $PATH?) (line 9)",
        ],
    );
    // The same without building, the ignored source too when it is asked for.
    let request = kitchen.request(
        "# check=skip=LegacyKeyValueFormat;experimental=all\nFROM busybox\nENV a b\nCOPY hidden /x\nADD hidden /y",
    );
    assert_eq!(
        kitchen.check(&request).unwrap(),
        [
            "CopyIgnoredFile: Attempting to Copy file \"hidden\" that is excluded by .dockerignore (line 4)",
            "CopyIgnoredFile: Attempting to Add file \"hidden\" that is excluded by .dockerignore (line 5)",
        ],
    );
}

#[test]
fn variables_with_a_default_are_not_undefined() {
    let kitchen = Kitchen::new();
    let text = "ARG V=1\nFROM busybox\nARG GIVEN\nENV A=${X:-1}${Y-2}${Z+3}${GIVEN}$FROM_BASE B=\\$ESCAPED C='$QUOTED' PATH=$PATH:/x\nRUN echo $SHELL_OWN\nCMD [\"$X\"]";
    let outcome = kitchen.run(&kitchen.request(text));
    assert_eq!(warnings(&outcome.log), [""; 0], "{}", outcome.log);
}

#[test]
fn from_is_checked() {
    let kitchen = Kitchen::new();
    let mut request = kitchen.request("ARG TAG\nFROM busybox:${TAG}${TGA}\nRUN true");
    request.build_args.push(("TAG".into(), "latest".into()));
    kitchen.shelve("busybox:latest", vec![], vec![], ContainerConfig::default());
    assert_eq!(
        kitchen.check(&request).unwrap(),
        [
            "UndefinedArgInFrom: FROM argument 'TGA' is not declared (did you mean TAG?) (line 2)",
            "InvalidDefaultArgInFrom: Default value for ARG busybox:${TAG}${TGA} results in empty or invalid base image name (line 2)",
        ],
    );
    let (layer, diff_id) = kitchen.content.layer(&Tar::new().file("a", 0o644, b"a").done());
    kitchen.shelve("other", vec![layer], vec![diff_id], ContainerConfig::default());
    let name = "docker.io/library/other";
    kitchen.shelf.images.lock().unwrap().get_mut(name).unwrap().config.architecture = "riscv64".into();
    let found = kitchen.check(&kitchen.request("FROM other")).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("InvalidBaseImagePlatform: Base image docker.io/library/other"), "{found:?}");
}

#[test]
fn checks_can_end_the_build() {
    let kitchen = Kitchen::new();
    let text = "# check=error=true\nFROM busybox\nMAINTAINER me\nRUN echo ran > /ran";
    let error = kitchen.run(&kitchen.request(text)).result.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Dockerfile);
    assert!(error.message.contains("lint violation found for rules: MaintainerDeprecated"), "{error}");
    assert!(error.message.starts_with("Dockerfile:3:1: "), "{error}");
    // The build argument stands in the directive's place.
    let mut request = kitchen.request(text);
    request.build_args.push(("BUILDKIT_DOCKERFILE_CHECK".into(), "skip=all".into()));
    let outcome = kitchen.run(&request);
    outcome.result.as_ref().unwrap();
    assert_eq!(warnings(&outcome.log), [""; 0]);
    request.build_args.push(("BUILDKIT_DOCKERFILE_CHECK".into(), "nonsense".into()));
    assert!(kitchen.run(&request).result.unwrap_err().message.contains("BUILDKIT_DOCKERFILE_CHECK"));
}

#[test]
fn a_syntax_from_outside_is_looked_at_too() {
    let kitchen = Kitchen::new();
    let with = |syntax: &str| {
        let mut request: BuildRequest = kitchen.request("FROM busybox");
        request.build_args.push(("BUILDKIT_SYNTAX".into(), syntax.into()));
        kitchen.run(&request).result
    };
    with("docker/dockerfile:1.7-labs").unwrap();
    assert!(with("example/frontend:1").unwrap_err().message.contains("is not available here"));
}

#[test]
fn build_arguments_of_buildkits_own() {
    let kitchen = Kitchen::new();
    let with = |args: &[(&str, &str)], text: &str| {
        let mut request = kitchen.request(text);
        request.build_args.extend(args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        kitchen.run(&request)
    };
    // The name of the steps' machine is part of what they are.
    let text = "FROM busybox\nRUN hostname > /name";
    let named = kitchen.image(with(&[("BUILDKIT_SANDBOX_HOSTNAME", "kitchen.test")], text));
    assert_eq!(named.files["name"], "0:0 644 kitchen.test\n");
    let plain = kitchen.build(text);
    assert_ne!(plain.files["name"], named.files["name"]);
    for bad in ["a b", "a/b", &"x".repeat(65)] {
        assert!(with(&[("BUILDKIT_SANDBOX_HOSTNAME", bad)], text).result.is_err(), "{bad}");
    }
    // Caches of other names are other caches.
    let count = |namespace: &str, round: &str| {
        let text = format!(
            "FROM busybox\nRUN --mount=type=cache,target=/c echo {round} >> /c/seen && wc -l < /c/seen > /count"
        );
        let image = kitchen.image(with(&[("BUILDKIT_CACHE_MOUNT_NS", namespace)], &text));
        image.files["count"].trim_end().rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(
        (count("", "a"), count("", "b"), count("other", "c"), count("other", "d")),
        ("1".into(), "2".into(), "1".into(), "2".into())
    );
    // The image has its own cache in it.
    let image = kitchen.image(with(&[("BUILDKIT_INLINE_CACHE", "1")], text));
    assert!(image.config.build_cache.is_some() && plain.config.build_cache.is_none());
}

/// Files and repositories that lie in a folder: `http://far/NAME` is the file of that name.
struct Far {
    dir: tempfile::TempDir,
    fetched: Mutex<Vec<String>>,
}

impl Far {
    fn new() -> Arc<Far> {
        Arc::new(Far { dir: tempfile::tempdir().unwrap(), fetched: Mutex::default() })
    }

    fn count(&self) -> usize {
        self.fetched.lock().unwrap().len()
    }
}

impl Remotes for Far {
    fn file(&self, url: &str, _: &dyn Fn(&str)) -> Result<RemoteFile, String> {
        self.fetched.lock().unwrap().push(url.to_owned());
        let name = url.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("a.bin");
        let path = self.dir.path().join(name);
        let bytes = std::fs::read(&path).map_err(|_| format!("{url} answers 404"))?;
        Ok(RemoteFile { path, digest: Digest::of(&bytes), name: None, mtime: 1_500_000_000, hold: Arc::new(()) })
    }

    fn commit(&self, source: &GitSource) -> Result<String, String> {
        Ok(match &source.commit {
            Some(commit) => format!("{commit:0<40}"),
            None => {
                Digest::of(&std::fs::read(self.dir.path().join("tree/head")).unwrap()).to_string()[7..47].to_owned()
            }
        })
    }

    fn tree(&self, _: &GitSource, _: &str, keep_git_dir: bool) -> Result<RemoteTree, String> {
        self.fetched.lock().unwrap().push("tree".to_owned());
        let root = self.dir.path().join("tree");
        std::fs::create_dir_all(root.join(".git")).unwrap();
        std::fs::write(root.join(".git/config"), "c").unwrap();
        if !keep_git_dir {
            std::fs::remove_dir_all(root.join(".git")).unwrap();
        }
        Ok(RemoteTree { root, hold: Arc::new(()) })
    }
}

#[test]
fn add_fetches_files() {
    let kitchen = Kitchen::new();
    let far = Far::new();
    std::fs::write(far.dir.path().join("a.bin"), "bytes").unwrap();
    std::fs::write(far.dir.path().join("x.tar"), Tar::new().file("in/side", 0o644, b"in").done()).unwrap();
    let run = |text: &str| {
        let mut request = kitchen.request(text);
        request.remotes = Some(far.clone());
        kitchen.run(&request)
    };
    let sum = Digest::of(b"bytes");
    let text = format!(
        "FROM scratch\nARG HOST=far\nADD http://$HOST/a.bin /d/\nADD --chmod=755 --chown=1:2 http://far/a.bin /named\n\
         ADD --checksum={sum} http://far/a.bin /checked\nADD http://far/x.tar /whole/\nADD --unpack http://far/x.tar /open/\n\
         ADD --unpack=false http://far/x.tar /shut/"
    );
    let image = kitchen.image(run(&text));
    assert_eq!(image.files["d/a.bin"], "0:0 600 bytes");
    assert_eq!(image.files["named"], "1:2 755 bytes");
    assert_eq!(image.files["checked"], "0:0 600 bytes");
    assert!(image.files.contains_key("whole/x.tar") && image.files.contains_key("shut/x.tar"));
    assert_eq!(image.files["open/in/side"], "0:0 644 in");
    // What is there with its checksum is not fetched again; other contents are another step.
    let checked = format!("FROM scratch\nADD --checksum={sum} http://far/a.bin /checked");
    kitchen.image(run(&checked));
    let before = far.count();
    assert_eq!(kitchen.image(run(&checked)).cached(), 1);
    assert_eq!(far.count(), before);
    std::fs::write(far.dir.path().join("a.bin"), "other").unwrap();
    assert_eq!(kitchen.image(run("FROM scratch\nADD http://far/a.bin /d/")).files["d/a.bin"], "0:0 600 other");
    let error = run(&format!("FROM busybox\nADD --checksum={sum} http://far/a.bin /else")).result.unwrap_err();
    assert!(error.message.contains("has the checksum") && error.message.starts_with("Dockerfile:2:"), "{error}");
    for (text, place) in [
        ("ADD http://far/none /x", "404"),
        ("ADD --checksum=nonsense http://far/a.bin /x", "is no digest"),
        ("ADD --checksum=sha256:00 a /x", "--checksum is for one download"),
        ("ADD http://far/ /d/", "no file name"),
    ] {
        let error = run(&format!("FROM scratch\n{text}")).result.unwrap_err();
        assert!(error.message.contains(place), "{text}: {error}");
    }
    // A build that may fetch nothing.
    assert!(kitchen.run(&kitchen.request("FROM scratch\nADD http://far/a.bin /x")).result.is_err());
}

#[test]
fn add_fetches_repositories() {
    let kitchen = Kitchen::new();
    let far = Far::new();
    std::fs::create_dir_all(far.dir.path().join("tree/src")).unwrap();
    std::fs::write(far.dir.path().join("tree/head"), "one").unwrap();
    std::fs::write(far.dir.path().join("tree/src/m.c"), "m").unwrap();
    let run = |text: &str| {
        let mut request = kitchen.request(&format!("FROM scratch\n{text}"));
        request.remotes = Some(far.clone());
        kitchen.run(&request)
    };
    let image = kitchen
        .image(run("ADD --exclude=**/*.c https://far/r.git /r/\nADD --keep-git-dir=true https://far/r.git#main /k/"));
    assert_eq!(image.files["r/head"], "0:0 644 one");
    assert!(!image.files.contains_key("r/src/m.c") && !image.files.keys().any(|path| path.starts_with("r/.git")));
    assert_eq!(image.files["k/.git/config"], "0:0 644 c");
    // The commit decides.
    let again = "ADD https://far/r.git /r/";
    kitchen.image(run(again));
    assert_eq!(kitchen.image(run(again)).cached(), 1);
    std::fs::write(far.dir.path().join("tree/head"), "two").unwrap();
    assert_eq!(kitchen.image(run(again)).files["r/head"], "0:0 644 two");
    for (text, why) in [
        ("ADD --keep-git-dir a /x", "--keep-git-dir is for git addresses"),
        ("ADD --checksum=xyz https://far/r.git /x", "is no commit"),
        ("COPY https://far/r.git /x", "COPY cannot have a URL as its source"),
    ] {
        let error = run(text).result.unwrap_err();
        assert!(error.message.contains(why), "{text}: {error}");
    }
}

#[test]
fn faults_have_a_column() {
    let kitchen = Kitchen::new();
    for (text, place) in [
        ("FROM busybox\nCOPY missing /x", "Dockerfile:2:6: \"/missing\": not found"),
        ("FROM busybox\nCOPY a \\\n     missing \\\n     /x/", "Dockerfile:2:6: "),
        ("FROM nothing-here", "Dockerfile:1:6: "),
        ("FROM busybox AS a\nCOPY --from=b$X x /", "Dockerfile:2:13: "),
        ("FROM busybox\n  LABEL a=${b", "Dockerfile:2:11: "),
        ("FROM busybox\nENV ok=1 \\\n  wrong", "Dockerfile:3:3: "),
    ] {
        let error = kitchen.run(&kitchen.request(text)).result.unwrap_err();
        assert!(error.message.starts_with(place), "{text}: {error}");
    }
}
