//! What is not done twice, and what comes out the same when it is: steps found by content,
//! SOURCE_DATE_EPOCH, other builders' caches, the list of packages.

use std::collections::HashMap;

use portolan_builder::sbom::{self, Kind};
use portolan_builder::{Annotation, Attest, BuildRequest, CacheExport, cache};
use portolan_types::oci::{ContainerConfig, ImageConfig, Manifest};
use portolan_types::{Digest, Timestamp, media_type};

use crate::kitchen::{Image, Kitchen};

const TWO_STAGES: &str = "FROM busybox AS make\nRUN echo made > /made\n\
    FROM busybox\nCOPY --from=make /made /made\nRUN cat /made > /again; cat /proc/sys/kernel/random/uuid > /once\n";

/// The steps of a log that were done, not found.
fn done(image: &Image) -> Vec<String> {
    let title = |line: &str| Some(line.split_once(' ')?.1.to_owned());
    let titles: HashMap<String, String> = image
        .log
        .lines()
        .filter_map(|line| Some((line.split_once(' ')?.0.to_owned(), title(line)?)))
        .filter(|(_, title)| title.starts_with('['))
        .collect();
    let mut done: Vec<String> = image
        .log
        .lines()
        .filter_map(|line| {
            let (number, rest) = line.split_once(' ')?;
            let title = titles.get(number)?;
            (rest.starts_with("DONE") && !title.starts_with("[internal]") && !title.contains("FROM "))
                .then(|| title.clone())
        })
        .collect();
    done.sort();
    done
}

#[test]
fn a_copy_is_found_by_what_it_copies_and_what_follows_by_what_it_led_to() {
    let kitchen = Kitchen::new();
    let first = kitchen.build(TWO_STAGES);
    // Another way to the same file: the first stage runs, and nothing else.
    let other = TWO_STAGES.replace("echo made >", "sleep 0; echo made >");
    let second = kitchen.build(&other);
    assert_eq!(done(&second), ["[make 2/2] RUN sleep 0; echo made > /made"], "{}", second.log);
    assert_eq!(second.built.layers, first.built.layers);
    assert_eq!(second.files["once"], first.files["once"]);

    // Another file: all that stands on it is done again.
    let third = kitchen.build(&TWO_STAGES.replace("echo made >", "echo else >"));
    assert_eq!(done(&third).len(), 3, "{}", third.log);
    assert_ne!(third.files["once"], first.files["once"]);
    assert_eq!(third.files["again"], "0:0 644 else\n");

    // The same file to another owner is another copy.
    let owned = other.replace("COPY --from", "COPY --chown=1000 --from");
    assert_eq!(kitchen.build(&owned).files["made"], "1000:1000 644 made\n");
    // And the way back finds all.
    assert_eq!(done(&kitchen.build(&other)), Vec::<String>::new());
}

#[test]
fn what_is_found_by_content_is_unpacked_when_its_files_are_gone() {
    let mut kitchen = Kitchen::new();
    let first = kitchen.build(TWO_STAGES);
    kitchen.forget_snapshots();
    let other = TWO_STAGES.replace("echo made >", "sleep 0; echo made >") + "RUN cp /once /twice\n";
    let second = kitchen.build(&other);
    assert_eq!(done(&second).len(), 2, "{}", second.log);
    assert_eq!(second.files["twice"], first.files["once"]);
}

fn dated(kitchen: &Kitchen, dockerfile: &str, secs: u64) -> BuildRequest {
    BuildRequest { source_date_epoch: Some(secs), created: Timestamp::now(), ..kitchen.request(dockerfile) }
}

#[test]
fn with_an_epoch_the_same_comes_out_byte_for_byte() {
    const FILE: &str = "FROM busybox AS a\nRUN echo a > /a\nFROM busybox\nARG SOURCE_DATE_EPOCH\n\
        COPY . /srv/\nCOPY --from=a /a /a\nRUN mkdir /d && echo $SOURCE_DATE_EPOCH > /d/f && ln /d/f /d/g && rm /root -r\nWORKDIR /new\n";
    const SECS: u64 = 1_700_000_000;
    let build = |kitchen: &Kitchen, secs| kitchen.image(kitchen.run(&dated(kitchen, FILE, secs)));
    let digests = |image: &Image| (image.built.digest, image.built.config.digest);

    let kitchen = Kitchen::new();
    kitchen.write("main.txt", "x");
    let first = build(&kitchen, SECS);
    assert_eq!(first.files["d/f"], "0:0 644 1700000000\n");
    assert_eq!(first.config.created.as_deref(), Some("2023-11-14T22:13:20.000000Z"));
    let times: Vec<_> = first.config.history.iter().filter_map(|h| h.created.as_deref()).collect();
    assert_eq!(times[0], "2020-01-01T00:00:00Z", "a base is as old as it is");
    assert!(times[1..].iter().all(|t| *t == "2023-11-14T22:13:20.000000Z"), "{times:?}");

    // Elsewhere, later, with files that are newer.
    let other = Kitchen::new();
    other.write("main.txt", "x");
    assert_eq!(digests(&build(&other, SECS)), digests(&first));
    // Found in the cache, and with the files of the cache gone.
    let mut kitchen = kitchen;
    assert_eq!(digests(&build(&kitchen, SECS)), digests(&first));
    kitchen.forget_snapshots();
    assert_eq!(digests(&build(&kitchen, SECS)), digests(&first));
    // By way of a build without it: the layers there are written again, not the steps done.
    let mut third = Kitchen::new();
    third.write("main.txt", "x");
    let mut plain = third.request(FILE);
    plain.build_args = vec![("SOURCE_DATE_EPOCH".into(), String::new())];
    let plain = third.image(third.run(&plain));
    assert_ne!(plain.built.digest, first.built.digest);
    third.forget_snapshots();
    let again = build(&third, SECS);
    assert_eq!(digests(&again), digests(&first));
    // Without a word in the Dockerfile it is in no key: every step is found.
    let quiet = "FROM busybox\nRUN echo a > /a\nRUN echo b > /b\n";
    let undated = third.build(quiet);
    third.forget_snapshots();
    let found = third.image(third.run(&dated(&third, quiet, SECS)));
    assert_eq!(done(&found), Vec::<String>::new(), "{}", found.log);
    assert_ne!(found.built.layers, undated.built.layers);
    let fresh = other.image(other.run(&dated(&other, quiet, SECS)));
    assert_eq!(found.built.digest, fresh.built.digest, "a layer written again is the layer written anew");
    // Another time is another image, by way of the argument as well.
    let mut later = third.request(quiet);
    later.build_args = vec![("SOURCE_DATE_EPOCH".into(), (SECS + 1).to_string())];
    assert_ne!(third.image(third.run(&later)).built.digest, found.built.digest);
    // And the build without it is as it was.
    assert_eq!(third.build(quiet).built.digest, undated.built.digest);
}

#[test]
fn an_epoch_that_is_none_is_refused() {
    let kitchen = Kitchen::new();
    for text in ["yesterday", "-1", "253402300800", "99999999999999999999"] {
        let mut request = kitchen.request("FROM busybox\nRUN true\n");
        request.build_args = vec![("SOURCE_DATE_EPOCH".into(), text.into())];
        let error = kitchen.run(&request).result.unwrap_err();
        assert!(error.message.contains("SOURCE_DATE_EPOCH"), "{}", error.message);
    }
}

fn exporting(kitchen: &Kitchen, dockerfile: &str, cache_export: CacheExport) -> Image {
    kitchen.image(kitchen.run(&BuildRequest { cache_export, ..kitchen.request(dockerfile) }))
}

#[test]
fn a_cache_goes_to_another_builder_and_back() {
    let mut kitchen = Kitchen::new();
    let max = CacheExport { registry: Some(true), inline: false };
    let first = exporting(&kitchen, TWO_STAGES, max);
    let exported = first.built.cache.clone().unwrap();
    assert_eq!(exported.steps, 3);
    assert!(exported.layers.iter().all(|layer| layer.annotations.contains_key(cache::UNCOMPRESSED)));
    let records = || cache::read_config(&exported.config, &exported.layers).unwrap();

    kitchen.forget();
    kitchen.import(records());
    let second = kitchen.build(TWO_STAGES);
    assert_eq!(done(&second), Vec::<String>::new(), "{}", second.log);
    assert_eq!(second.built.layers, first.built.layers);
    assert_eq!(second.built.digest, first.built.digest);
    // What stands on it, too: the files come from the layers.
    let third = kitchen.build(&(TWO_STAGES.to_owned() + "RUN cp /once /twice\n"));
    assert_eq!(done(&third).len(), 1, "{}", third.log);
    assert_eq!(third.files["twice"], first.files["once"]);
    // What was taken from it once is the registry's own now.
    kitchen.forget_snapshots();
    assert_eq!(done(&kitchen.build(TWO_STAGES)), Vec::<String>::new());

    // mode=min: the image's own layers.
    kitchen.forget();
    let min = exporting(&kitchen, TWO_STAGES, CacheExport { registry: Some(false), inline: false });
    let exported = min.built.cache.unwrap();
    assert_eq!(exported.steps, 2);
    kitchen.forget();
    kitchen.import(cache::read_config(&exported.config, &exported.layers).unwrap());
    let again = kitchen.build(TWO_STAGES);
    assert_eq!(done(&again), Vec::<String>::new(), "the first stage is not needed: {}", again.log);
    let edited = kitchen.build(&TWO_STAGES.replace("echo made", "echo else"));
    assert_eq!(done(&edited).len(), 3, "{}", edited.log);
}

#[test]
fn an_inline_cache_is_in_the_image() {
    let mut kitchen = Kitchen::new();
    let first = exporting(&kitchen, TWO_STAGES, CacheExport { registry: None, inline: true });
    assert!(first.built.cache.is_none());
    assert!(first.config.build_cache.is_some());
    let records = cache::read_inline(&first.config, &first.built.layers).unwrap();
    assert_eq!(records.len(), 2);
    kitchen.forget();
    kitchen.import(records);
    let second = kitchen.build(TWO_STAGES);
    assert_eq!(done(&second), Vec::<String>::new(), "{}", second.log);
    assert_eq!(second.built.layers, first.built.layers);
    assert_eq!(second.config.build_cache, None, "not asked for, not handed on");
}

#[test]
fn records_from_elsewhere_that_lie_cost_time_and_nothing_else() {
    let mut kitchen = Kitchen::new();
    let first = exporting(&kitchen, TWO_STAGES, CacheExport { registry: Some(true), inline: false });
    let exported = first.built.cache.clone().unwrap();
    // Layers that are not there, or have another size than is said.
    for broken in [0, 1] {
        let mut layers = exported.layers.clone();
        let mut config = String::from_utf8(exported.config.clone()).unwrap();
        for layer in &mut layers {
            match broken {
                0 => {
                    let other = Digest::of(layer.digest.to_string().as_bytes());
                    config = config.replace(&layer.digest.to_string(), &other.to_string());
                    layer.digest = other;
                }
                _ => layer.size += 1,
            }
        }
        kitchen.forget();
        kitchen.import(cache::read_config(config.as_bytes(), &layers).unwrap());
        let built = kitchen.build(TWO_STAGES);
        assert_eq!(done(&built).len(), 3, "{}", built.log);
        assert_eq!(built.files["again"], "0:0 644 made\n");
    }
    // A layer that is another than its uncompressed digest says is found out when it is used.
    let mut layers = exported.layers.clone();
    for layer in &mut layers {
        layer.annotations.insert(cache::UNCOMPRESSED.into(), Digest::of(b"else").to_string());
    }
    kitchen.forget();
    kitchen.import(cache::read_config(&exported.config, &layers).unwrap());
    let outcome = kitchen.run(&kitchen.request(&(TWO_STAGES.to_owned() + "RUN true\n")));
    let error = outcome.result.unwrap_err();
    assert!(error.message.contains("unpacks to"), "{}", error.message);
}

#[test]
fn annotations_make_an_oci_manifest() {
    let kitchen = Kitchen::new();
    let mut request = kitchen.request("FROM busybox\nRUN true\n");
    let annotation = |platform, value: &str| Annotation { platform, key: "org.example.a".into(), value: value.into() };
    request.annotations = vec![annotation(None, "b"), annotation(Some("linux/s390x".parse().unwrap()), "c")];
    let built = kitchen.run(&request).result.unwrap();
    assert_eq!(built.media_type, media_type::OCI_MANIFEST);
    let manifest: Manifest = serde_json::from_slice(&built.manifest).unwrap();
    assert_eq!(manifest.annotations["org.example.a"], "b");
    assert!(manifest.layers.iter().all(|layer| layer.media_type == media_type::OCI_LAYER_GZIP));
    let config = kitchen.content.blobs.lock().unwrap()[&built.config.digest].clone();
    assert!(serde_json::from_slice::<ImageConfig>(&config).is_ok());
}

#[test]
fn where_sources_came_from_is_told_unless_the_file_tells_it() {
    let kitchen = Kitchen::new();
    let labels = |dockerfile: &str, given: &[(&str, &str)]| {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let request = BuildRequest {
            origin_labels: [("source", "here"), ("revision", "1")].iter().map(pair).collect(),
            labels: given.iter().map(pair).collect(),
            ..kitchen.request(dockerfile)
        };
        kitchen.image(kitchen.run(&request)).config.config.labels.unwrap()
    };
    let told = labels("FROM busybox\nLABEL revision=mine\n", &[]);
    assert_eq!((told["source"].as_str(), told["revision"].as_str()), ("here", "mine"));
    assert_eq!(labels("FROM busybox\n", &[("source", "there")])["source"], "there");
    // What the base says is about the base.
    let (layer, diff_id) = kitchen.content.layer(&crate::support::busybox_tar());
    let config = ContainerConfig { labels: Some([("source".into(), "base".into())].into()), ..Default::default() };
    kitchen.shelve("labelled", vec![layer], vec![diff_id], config);
    assert_eq!(labels("FROM labelled\n", &[])["source"], "here");
}

#[test]
fn packages_are_listed_from_the_images_files() {
    let kitchen = Kitchen::new();
    kitchen.write("status", "Package: bash\nStatus: install ok installed\nVersion: 5.2-1\nArchitecture: amd64\n");
    kitchen.write("METADATA", "Name: Flask\nVersion: 3.0\nLicense: BSD-3-Clause\n\n");
    kitchen.write("package.json", r#"{"name":"@s/p","version":"1.2.3"}"#);
    kitchen.write("os-release", "ID=debian\nVERSION_ID=\"12\"\n");
    let request = BuildRequest {
        attest: Attest { sbom: true },
        ..kitchen.request(
            "FROM busybox\nCOPY os-release /usr/lib/\nRUN ln -s ../usr/lib/os-release /etc/os-release\n\
             COPY status /var/lib/dpkg/\nCOPY METADATA /usr/lib/python3/dist-packages/flask-3.0.dist-info/\n\
             COPY package.json /srv/node_modules/@s/p/\n\
             RUN mkdir /srv/x.egg-info && ln -s /proc/self/environ /srv/x.egg-info/PKG-INFO && mkfifo /srv/node_modules/package.json\n",
        )
    };
    let outcome = kitchen.run(&request);
    let built = outcome.result.unwrap();
    let found = built.packages.unwrap();
    let told: Vec<_> = found.packages.iter().map(|p| format!("{} {} {}", p.kind.as_str(), p.name, p.version)).collect();
    assert_eq!(told, ["deb bash 5.2-1", "npm @s/p 1.2.3", "pypi Flask 3.0"]);
    assert_eq!((found.distribution.as_str(), found.packages[0].kind), ("debian", Kind::Deb));
    assert_eq!(found.gaps, Vec::<String>::new());
    let subject = sbom::Subject { name: "app", digest: built.digest, created: Timestamp(0), tool: "portolan-test" };
    let document = sbom::document(&subject, &found).to_string();
    assert!(document.contains("pkg:deb/debian/bash@5.2-1?arch=amd64&distro=debian-12"), "{document}");

    // Again, with everything found: the files are looked through all the same.
    let again = kitchen.run(&request).result.unwrap();
    assert_eq!(again.packages.unwrap(), found);
    assert!(kitchen.run(&BuildRequest { attest: Attest::default(), ..request }).result.unwrap().packages.is_none());
}
