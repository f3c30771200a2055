//! The decision table, and what it cannot say.
//!
//! `table.txt` is every answer that there is, for people to read. A change of the rules is
//! seen there in review; `UPDATE_EXPECT=1 cargo test -p portolan-auth access` writes it.

use std::fmt::Write as _;
use std::sync::Arc;

use expect_test::expect_file;
use portolan_types::RepoName;
use proptest::prelude::*;

use super::*;

const SUB: &str = "/subscriptions/s";
const GROUP: &str = "/subscriptions/s/resourcegroups/g";
const REG: &str = "/subscriptions/s/resourcegroups/g/providers/microsoft.containerregistry/registries/myreg";

fn someone() -> Principal {
    Principal::Directory { object_id: Uuid::nil(), app_id: None }
}

fn name(text: &str) -> RegistryName {
    text.parse().unwrap()
}

/// What a row of the table is about.
struct Case<'a> {
    principal: Principal,
    assignments: Vec<Assignment>,
    scope_map: Option<&'a ScopeMap>,
}

impl Case<'_> {
    fn of(principal: Principal) -> Case<'static> {
        Case { principal, assignments: Vec::new(), scope_map: None }
    }

    fn holding(role: &Role, scope: &str, condition: Option<&str>) -> Case<'static> {
        let condition = condition.map(|text| Arc::new(Condition::parse(text).unwrap()));
        let assignments = vec![Assignment { scope: scope.to_owned(), actions: role.actions, condition }];
        Case { assignments, ..Case::of(someone()) }
    }

    fn may(&self, action: Action, resource: &Resource<'_>) -> bool {
        let held = Held { assignments: &self.assignments, scope_map: self.scope_map };
        decide(&self.principal, &held, action, resource)
    }
}

/// Columns of the sections on content.
const CONTENT: &str = "pull push delete  meta-read meta-write  catalog";

fn content(case: &Case<'_>, facts: RegistryFacts<'_>) -> String {
    let a: RepoName = "a".parse().unwrap();
    let team: RepoName = "team/x".parse().unwrap();
    let mut line = String::new();
    for repository in [None, Some(&a), Some(&team)] {
        let resource = Resource { scope: REG, registry: Some(facts), repository };
        let mark = |action, letter| if case.may(action, &resource) { letter } else { '.' };
        let marks = [
            mark(Action::Pull, 'p'),
            mark(Action::Push, 'w'),
            mark(Action::Delete, 'd'),
            mark(Action::MetadataRead, 'm'),
            mark(Action::MetadataWrite, 'M'),
            mark(Action::CatalogList, 'c'),
        ];
        line.extend(marks.iter().flat_map(|c| [' ', *c]));
        line += "   ";
    }
    line.trim_end().to_owned()
}

#[test]
fn the_table_says_what_is_decided() {
    let myreg = name("MyReg");
    let legacy = RegistryFacts { name: &myreg, admin_enabled: true, anonymous_pull: false, mode: RoleMode::Legacy };
    let abac = RegistryFacts { mode: RoleMode::Abac, ..legacy };
    let mut t = String::from(
        "Who may do what: every answer of `access::decide`.\n\
         Written by a test, which fails when the answers are others. x or a letter is yes, . is no.\n",
    );

    t += "\n1. Built-in roles, given at the subscription, on what is not content\n\n";
    for (i, role) in roles().iter().enumerate() {
        writeln!(t, "   {:>2} {}", i + 1, role.name).unwrap();
    }
    let head: String = (1..=roles().len()).map(|i| format!("{i:>3}")).collect();
    writeln!(t, "\n{:<72}{head}", "").unwrap();
    for action in Action::ALL.iter().filter(|a| !a.is_data()) {
        let resource = Resource { scope: REG, registry: Some(legacy), repository: None };
        let answers: String = roles()
            .iter()
            .map(|role| if Case::holding(role, SUB, None).may(*action, &resource) { "  x" } else { "  ." })
            .collect();
        writeln!(t, "{:<72}{answers}", action.operation()).unwrap();
    }

    let heading = |t: &mut String, title: &str| {
        writeln!(t, "\n{title}\n").unwrap();
        writeln!(
            t,
            "   {CONTENT}: p w d m M c, on the registry (every repository alike) | repository a | repository team/x\n"
        )
        .unwrap();
    };
    heading(&mut t, "2. Built-in roles, given at the subscription, on content");
    writeln!(t, "{:<76} {:<45} in the ABAC mode", "", "in the legacy mode").unwrap();
    for role in roles() {
        let case = Case::holding(role, SUB, None);
        writeln!(t, "{:<76}{:<45} {}", role.name, content(&case, legacy), content(&case, abac)).unwrap();
    }

    heading(&mut t, "3. Everybody else, on content");
    let map = ScopeMap::parse(&[
        "repositories/a/content/read",
        "repositories/a/metadata/read",
        "repositories/team/*/content/read",
        "repositories/team/*/content/write",
    ])
    .unwrap();
    let every = ScopeMap::parse(&["repositories/*/content/read", "repositories/*/metadata/read"]).unwrap();
    let token =
        |of: &str, scope_map| Case { scope_map, ..Case::of(Principal::Token { registry: name(of), name: "t".into() }) };
    let open = |facts| RegistryFacts { anonymous_pull: true, ..facts };
    let closed = |facts| RegistryFacts { admin_enabled: false, ..facts };
    let owner = role(OWNER).unwrap();
    let owning = |principal| Case { principal, ..Case::holding(owner, SUB, None) };
    type Change<'a> = &'a dyn Fn(RegistryFacts<'a>) -> RegistryFacts<'a>;
    let cases: [(&str, Case<'_>, Change<'_>); 13] = [
        ("nobody", Case::of(Principal::Anonymous), &|f| f),
        ("nobody, anonymous pull on", Case::of(Principal::Anonymous), &open),
        ("nobody, handed the roles of an owner", owning(Principal::Anonymous), &|f| f),
        ("admin user", Case::of(Principal::AdminUser(name("myreg"))), &|f| f),
        ("admin user, turned off", Case::of(Principal::AdminUser(name("myreg"))), &closed),
        ("admin user of another registry", Case::of(Principal::AdminUser(name("other"))), &|f| f),
        ("token: read a; read and write team/*", token("myreg", Some(&map)), &|f| f),
        ("token: read *", token("MYREG", Some(&every)), &|f| f),
        ("token without a scope map", token("myreg", None), &|f| f),
        ("token of another registry", token("other", Some(&every)), &|f| f),
        ("token, anonymous pull on", token("myreg", None), &open),
        ("directory principal without a role", Case::of(someone()), &|f| f),
        ("the server itself", Case::of(Principal::System), &|f| f),
    ];
    writeln!(t, "{:<76} {:<45} in the ABAC mode", "", "in the legacy mode").unwrap();
    for (who, case, change) in &cases {
        writeln!(t, "{who:<76}{:<45} {}", content(case, change(legacy)), content(case, change(abac))).unwrap();
    }

    t += "\n4. Everybody but directory principals, on what is not content\n\n";
    for (who, case, change) in &cases {
        let resource = Resource { scope: REG, registry: Some(change(legacy)), repository: None };
        let outside = Resource { scope: SUB, registry: None, repository: None };
        let control: Vec<&Action> = Action::ALL.iter().filter(|a| !a.is_data()).collect();
        let count = control.iter().filter(|a| case.may(***a, &resource) || case.may(***a, &outside)).count();
        let answer = match count {
            0 => "nothing",
            n if n == control.len() => "everything",
            _ => "something",
        };
        writeln!(t, "{who:<60} {answer}").unwrap();
    }

    t += "\n5. Where an Owner may read: given at (down) on (across)\n\n";
    let group2 = format!("{GROUP}2");
    let other = REG.replace("myreg", "myreg2");
    let token_id = format!("{REG}/tokens/t");
    let places = [
        ("everything", ""),
        ("the subscription s", SUB),
        ("group g", GROUP),
        ("group g2", &group2),
        ("registry myreg", REG),
        ("registry myreg2", &other),
        ("a token of myreg", &token_id),
    ];
    let strange = [
        ("subscription s2", "/subscriptions/s2"),
        ("a cut-off group", "/subscriptions/s/resourcegroups/"),
        ("the group's type", "/subscriptions/s/resourcegroups"),
        ("a cut-off name", "/subscriptions/s/resourcegroups/g/providers/microsoft.containerregistry/registries/my"),
    ];
    let across: String = places[1..].iter().map(|(what, _)| format!("{what:<20}")).collect();
    writeln!(t, "{:<22}{}", "", across.trim_end()).unwrap();
    for (given, at) in places.iter().chain(&strange) {
        let case = Case::holding(owner, at, None);
        let answers: String = places[1..]
            .iter()
            .map(|(_, scope)| {
                let yes = case.may(Action::RegistryRead, &Resource { scope, registry: None, repository: None });
                format!("{:<20}", if yes { "x" } else { "." })
            })
            .collect();
        writeln!(t, "{given:<22}{}", answers.trim_end()).unwrap();
    }

    heading(
        &mut t,
        "6. Roles with a condition, given at the registry, on content; in the legacy mode, in the ABAC mode",
    );
    let attribute = "@Request[Microsoft.ContainerRegistry/registries/repositories:name]";
    let prefix = "Microsoft.ContainerRegistry/registries/repositories";
    let conditions = [
        "NAME StringEquals 'a'",
        "NAME StringNotEquals 'a'",
        "NOT NAME StringEquals 'a'",
        "NAME StringStartsWithIgnoreCase 'TEAM/'",
        "NAME StringLike 'team/*' OR NAME StringEquals 'a'",
        "NAME StringLike 'team/*' AND NAME StringEquals 'a'",
        "!(ActionMatches{'REPOS/content/read'}) OR NAME StringEquals 'a'",
        "!(ActionMatches{'REPOS/*'}) OR NAME StringEquals 'a'",
        "!(ActionMatches{'*'}) OR NAME StringEquals 'a'",
        "ActionMatches{'*/read'}",
        "NOT Exists NAME",
    ];
    for (i, id) in [REPOSITORY_CONTRIBUTOR, CATALOG_LISTER, ACR_PUSH, OWNER].into_iter().enumerate() {
        let role = role(id).unwrap();
        writeln!(t, "{}{}", if i > 0 { "\n" } else { "" }, role.name).unwrap();
        for condition in conditions {
            let full = condition.replace("NAME", attribute).replace("REPOS", prefix);
            let case = Case::holding(role, REG, Some(&full));
            writeln!(t, "    {condition:<72}{:<45} {}", content(&case, legacy), content(&case, abac)).unwrap();
        }
    }
    expect_file!["table.txt"].assert_eq(&t);
}

/// Assignments of any kind, conditions and scopes included.
fn assignments() -> impl Strategy<Value = Vec<Assignment>> {
    let scope = prop_oneof![Just(""), Just(SUB), Just(GROUP), Just(REG), Just("/subscriptions/s2")];
    let condition = prop_oneof![
        Just(None),
        Just(Some("@Request[Microsoft.ContainerRegistry/registries/repositories:name] StringLike 'a*'")),
        Just(Some("!(ActionMatches{'*/write'})")),
    ];
    let one = (scope, 0..roles().len(), condition).prop_map(|(scope, role, condition)| Assignment {
        scope: scope.to_owned(),
        actions: roles()[role].actions,
        condition: condition.map(|text| Arc::new(Condition::parse(text).unwrap())),
    });
    proptest::collection::vec(one, 0..5)
}

proptest! {
    #[test]
    fn one_question_and_all_questions_have_the_same_answers(
        held in assignments(), at in 0usize..3, abac: bool, repository in "[ab]{1,2}",
    ) {
        let myreg = name("myreg");
        let mode = if abac { RoleMode::Abac } else { RoleMode::Legacy };
        let facts = RegistryFacts { name: &myreg, admin_enabled: true, anonymous_pull: true, mode };
        let repository: RepoName = repository.parse().unwrap();
        let resource = [
            Resource { scope: GROUP, registry: None, repository: None },
            Resource { scope: REG, registry: Some(facts), repository: None },
            Resource { scope: REG, registry: Some(facts), repository: Some(&repository) },
        ][at];
        let ask = |assignments: &[Assignment]| allowed(&someone(), &Held { assignments, scope_map: None }, &resource);
        let all = ask(&held);
        for action in Action::ALL {
            let one = decide(&someone(), &Held { assignments: &held, scope_map: None }, *action, &resource);
            prop_assert_eq!(one, all.contains(*action), "{:?}", action);
        }
        // Roles only add, and in no order.
        let sum = held.iter().fold(ActionSet::NONE, |sum, a| sum.with(ask(std::slice::from_ref(a))));
        prop_assert_eq!(sum, all);
    }
}

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
