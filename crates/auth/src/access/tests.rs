//! The decision table, and what it cannot say.

use super::*;

#[test]
fn grants_open_what_they_name() {
    let grant = |kind: &str, name: &str, actions: &[&str]| Grant {
        kind: kind.into(),
        name: name.into(),
        actions: actions.iter().map(|a| (*a).to_owned()).collect(),
    };
    let a = Target::Repo("a".parse().unwrap());
    let b = Target::Repo("a/b".parse().unwrap());
    let pull_a = [grant("repository", "a", &["pull"])];
    assert!(grants_allow(&pull_a, &a, Action::Pull));
    assert!(!grants_allow(&pull_a, &a, Action::Push));
    assert!(!grants_allow(&pull_a, &b, Action::Pull), "a repository does not open those below it");
    assert!(!grants_allow(&pull_a, &Target::Registry, Action::CatalogList));
    let catalog = [grant("registry", "catalog", &["*"])];
    assert!(grants_allow(&catalog, &Target::Registry, Action::CatalogList));
    assert!(!grants_allow(&catalog, &a, Action::Pull));
    let named_catalog = [grant("repository", "catalog", &["*"])];
    assert!(!grants_allow(&named_catalog, &Target::Registry, Action::CatalogList));
    let all = [grant("repository", "*", &["*"])];
    assert!(grants_allow(&all, &b, Action::Delete) && !grants_allow(&all, &Target::Registry, Action::CatalogList));
    for action in Action::ALL.iter().filter(|a| !a.is_data()) {
        assert!(!grants_allow(&all, &a, *action), "no registry token opens the control plane");
    }
}

#[test]
fn scopes_to_ask_for() {
    let a = Target::Repo("a".parse().unwrap());
    assert_eq!(scope_text(&a, Action::Pull), "repository:a:pull");
    assert_eq!(scope_text(&a, Action::Push), "repository:a:pull,push");
    assert_eq!(scope_text(&Target::Registry, Action::CatalogList), "registry:catalog:*");
}
