//! Which crate may depend on which, and which heavy dependency lives where.
//!
//! The table is the architecture: a new line in it is reviewed as a change to the
//! architecture, and ARCHITECTURE.md changes with it.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::{Finding, Source};

/// Every crate of the workspace, and the crates of the workspace it may depend on.
const EDGES: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("auth", &["types"]),
    ("store", &["types"]),
    ("api", &["types"]),
    ("builder", &["types"]),
    ("service", &["types", "auth", "store"]),
    ("tasks", &["types", "store"]),
    ("server", &["types", "auth", "store", "api", "builder", "service", "tasks"]),
    ("cli", &["types", "api"]),
    ("portolan", &["server", "cli", "builder"]),
    ("testkit", &["types"]),
    ("fuzz", &["types", "auth", "api", "builder", "service", "tasks", "server"]),
    ("xtask", &[]),
];

/// Edges that only tests may have, from any crate but those testkit stands on.
const DEV_EDGES: &[&str] = &["testkit"];

/// Dependencies that are fenced off, the crates that may have them, and why.
const QUARANTINE: &[(&str, &[&str], &str)] = &[
    ("rusqlite", &["store"], "SQL is written in store only"),
    ("tokio-postgres", &["store"], "SQL is written in store only"),
    ("axum", &["server"], "only server speaks HTTP to clients"),
    ("hyper", &["server", "xtask"], "only server speaks HTTP to clients"),
    ("hyper-util", &["server", "xtask"], "only server speaks HTTP to clients"),
    ("reqwest", &["api", "testkit", "xtask"], "HTTP is asked through api"),
    ("libcontainer", &["builder"], "namespaces are builder's"),
    ("oci-spec", &["builder"], "the runtime's documents are builder's"),
    ("jsonwebtoken", &["auth"], "tokens are auth's"),
    ("argon2", &["auth"], "password hashing is auth's"),
];

/// Quarantined dependencies that a crate's tests may have all the same.
const DEV_QUARANTINE: &[(&str, &str)] = &[("server", "reqwest")];

pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen = BTreeMap::new();
    for source in sources {
        let Some(name) = crate_of(&source.path) else { continue };
        seen.insert(name.to_owned(), ());
        manifest(name, source, &mut findings);
    }
    // On a few texts in a test, crates that are not given are not missed.
    if seen.len() > 2 {
        for (name, _) in EDGES.iter().filter(|(name, _)| !seen.contains_key(*name)) {
            findings.push(Finding::new(
                "xtask/src/tidy/edges.rs",
                0,
                format!("there is no crate `{name}`: take it out"),
            ));
        }
    }
    findings
}

/// `crates/store/Cargo.toml` → `store`.
fn crate_of(path: &str) -> Option<&str> {
    if path == "xtask/Cargo.toml" {
        return Some("xtask");
    }
    path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml").filter(|name| !name.contains('/'))
}

fn manifest(name: &str, source: &Source, findings: &mut Vec<Finding>) {
    let mut add = |what: String| findings.push(Finding::new(&source.path, 0, what));
    let Ok(manifest) = source.text.parse::<Table>() else { return add("it is not TOML".to_owned()) };
    let Some((_, allowed)) = EDGES.iter().find(|(known, _)| *known == name) else {
        return add(format!(
            "crate `{name}` is not in the table of xtask/src/tidy/edges.rs: a new crate must forbid an edge, sit on a process boundary or fence off a heavy dependency"
        ));
    };
    if manifest.get("lints").and_then(|l| l.get("workspace")).and_then(Value::as_bool) != Some(true) {
        add("say `[lints] workspace = true`".to_owned());
    }
    for (kind, dependency, value) in dependencies(&manifest) {
        let dev = kind == "dev-dependencies";
        if value.get("workspace").and_then(Value::as_bool) != Some(true) {
            add(format!(
                "`{dependency}`: versions stand in the workspace's Cargo.toml (`{dependency}.workspace = true`)"
            ));
        }
        if let Some(other) = dependency.strip_prefix("portolan-") {
            let fine = allowed.contains(&other) || dev && DEV_EDGES.contains(&other) && name != other;
            if !fine {
                add(format!("`{name}` may not depend on `{other}`: see the levels in ARCHITECTURE.md"));
            }
        }
        if let Some((_, homes, why)) = QUARANTINE.iter().find(|(fenced, _, _)| *fenced == dependency) {
            let fine = homes.contains(&name) || dev && DEV_QUARANTINE.contains(&(name, dependency));
            if !fine {
                add(format!("`{dependency}` may only be in {}: {why}", homes.join(", ")));
            }
        }
    }
}

/// All dependencies with their kind, those of targets included.
fn dependencies(manifest: &Table) -> Vec<(&'static str, &str, &Value)> {
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(|t| t.values());
    let tables = std::iter::once(manifest).chain(targets.filter_map(Value::as_table));
    let mut all = Vec::new();
    for table in tables {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in table.get(kind).and_then(Value::as_table).into_iter().flatten() {
                all.push((kind, name.as_str(), value));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, body: &str) -> Vec<String> {
        let text = format!("[lints]\nworkspace = true\n{body}");
        let source = Source::new(&format!("crates/{name}/Cargo.toml"), &text);
        check(&[source]).into_iter().map(|f| f.what).collect()
    }

    #[test]
    fn an_edge_upwards_or_sideways_is_found() {
        assert_eq!(of("service", "[dependencies]\nportolan-store.workspace = true"), [] as [String; 0]);
        let sideways = of("store", "[dependencies]\nportolan-auth.workspace = true");
        assert!(sideways[0].contains("`store` may not depend on `auth`"), "{sideways:?}");
        let upwards = of("types", "[target.'cfg(unix)'.dependencies]\nportolan-server.workspace = true");
        assert!(upwards[0].contains("`types` may not depend on `server`"), "{upwards:?}");
    }

    #[test]
    fn tests_may_use_testkit_and_nothing_else_may() {
        assert!(of("server", "[dev-dependencies]\nportolan-testkit.workspace = true").is_empty());
        assert_eq!(of("server", "[dependencies]\nportolan-testkit.workspace = true").len(), 1);
    }

    #[test]
    fn fenced_dependencies_stay_home() {
        assert!(of("store", "[dependencies]\nrusqlite.workspace = true").is_empty());
        let out = of("service", "[dependencies]\nrusqlite.workspace = true");
        assert!(out[0].contains("SQL is written in store only"), "{out:?}");
        assert_eq!(of("cli", "[dependencies]\nreqwest.workspace = true").len(), 1);
    }

    #[test]
    fn a_new_crate_and_a_version_of_its_own_are_found() {
        assert!(of("extra", "")[0].contains("is not in the table"));
        assert!(of("store", "[dependencies]\nserde = '1'")[0].contains("versions stand in the workspace"));
        let no_lints = check(&[Source::new("crates/types/Cargo.toml", "[package]\nname = 'x'")]);
        assert_eq!(no_lints.len(), 1);
    }
}
