//! What is printed, held against az's own form.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use crate::args::{Format, Global};
use crate::output::table::{member, time};
use crate::output::{Output, all_flattened, flattened};

fn check(output: Output, format: Format, query: Option<&str>, expected: Expect) {
    let query = query.map(|q| q.parse().unwrap());
    let global = Global { output: format, query, ..Global::default() };
    expected.assert_eq(&output.render(&global, false).unwrap());
}

fn registry() -> Value {
    json!({
        "id": "/subscriptions/s/resourceGroups/rg/providers/Microsoft.ContainerRegistry/registries/myreg",
        "name": "myreg", "type": "Microsoft.ContainerRegistry/registries", "location": "eastus", "tags": {},
        "sku": {"name": "Basic", "tier": "Basic"},
        "properties": {"loginServer": "localhost:8443", "adminUserEnabled": false, "provisioningState": "Succeeded",
            "creationDate": "2026-11-20T10:00:00.123456+00:00"}
    })
}

fn registry_columns(item: &Value) -> Vec<(&'static str, String)> {
    vec![
        ("NAME", member(item, &["name"])),
        ("RESOURCE GROUP", member(item, &["resourceGroup"])),
        ("CREATION DATE", time(item, &["creationDate"])),
        ("ADMIN ENABLED", member(item, &["adminUserEnabled"])),
        ("NOTHING", member(item, &["nothing"])),
    ]
}

#[test]
fn json_is_flat_sorted_and_indented_by_two() {
    check(
        Output::value(flattened(registry())),
        Format::Json,
        None,
        expect![[r#"
        {
          "adminUserEnabled": false,
          "creationDate": "2026-11-20T10:00:00.123456+00:00",
          "id": "/subscriptions/s/resourceGroups/rg/providers/Microsoft.ContainerRegistry/registries/myreg",
          "location": "eastus",
          "loginServer": "localhost:8443",
          "name": "myreg",
          "provisioningState": "Succeeded",
          "resourceGroup": "rg",
          "sku": {
            "name": "Basic",
            "tier": "Basic"
          },
          "tags": {},
          "type": "Microsoft.ContainerRegistry/registries"
        }
    "#]],
    );
    check(
        Output::value(json!([])),
        Format::Json,
        None,
        expect![[r#"
        []
    "#]],
    );
    check(
        Output::value(true),
        Format::Json,
        None,
        expect![[r#"
        true
    "#]],
    );
    check(Output::none(), Format::Json, None, expect![[""]]);
}

#[test]
fn tables_of_registries() {
    let list = all_flattened(vec![registry()]);
    check(
        Output::with_columns(list.clone(), registry_columns),
        Format::Table,
        None,
        expect![[r#"
        NAME    RESOURCE GROUP    CREATION DATE         ADMIN ENABLED    NOTHING
        ------  ----------------  --------------------  ---------------  ---------
        myreg   rg                2026-11-20T10:00:00Z  False
    "#]],
    );
    check(
        Output::with_columns(list, registry_columns),
        Format::Table,
        Some("[].{Server: loginServer, Admin: adminUserEnabled}"),
        expect![[r#"
            Server          Admin
            --------------  -------
            localhost:8443  False
        "#]],
    );
    check(Output::with_columns(json!([]), registry_columns), Format::Table, None, expect![[""]]);
}

#[test]
fn tables_of_repositories_and_tags() {
    check(
        Output::value(json!(["fastapi-echo", "flask-echo"])),
        Format::Table,
        None,
        expect![[r#"
        Result
        ------------
        fastapi-echo
        flask-echo
    "#]],
    );
    let tags = json!([
        {"name": "v1", "digest": "sha256:ab", "signed": false, "createdTime": "2026-11-20T10:00:00.1Z",
         "lastUpdateTime": "2026-11-20T10:00:00.1Z", "changeableAttributes": {"deleteEnabled": true}},
        {"name": "latest", "digest": "sha256:ab", "signed": false, "createdTime": "2026-11-20T10:00:00.1Z",
         "lastUpdateTime": null, "changeableAttributes": {}},
    ]);
    check(
        Output::value(tags),
        Format::Table,
        None,
        expect![[r#"
        CreatedTime             Digest     LastUpdateTime          Name    Signed
        ----------------------  ---------  ----------------------  ------  --------
        2026-11-20T10:00:00.1Z  sha256:ab  2026-11-20T10:00:00.1Z  v1      False
        2026-11-20T10:00:00.1Z  sha256:ab                          latest  False
    "#]],
    );
}

#[test]
fn tsv_rows() {
    check(
        Output::value(json!(["a", "b"])),
        Format::Tsv,
        None,
        expect![[r#"
        a
        b
    "#]],
    );
    check(
        Output::value("localhost:8443"),
        Format::Tsv,
        None,
        expect![[r#"
        localhost:8443
    "#]],
    );
    check(
        Output::value(false),
        Format::Tsv,
        None,
        expect![[r#"
        false
    "#]],
    );
    check(
        Output::value(json!([{"b": true, "a": null, "c": [1, 2], "d": {"x": 1}, "e": 7}])),
        Format::Tsv,
        None,
        expect!["None\tTrue\t2\t\t7\n"],
    );
    check(
        Output::value(json!([{"name": "v1", "digest": "d"}])),
        Format::Tsv,
        Some("[].{name: name, digest: digest}"),
        expect!["v1\td\n"],
    );
    check(Output::value(json!({"a": 1})), Format::Tsv, Some("nope"), expect![[""]]);
    check(Output::value(json!({"a": []})), Format::Tsv, Some("a"), expect![[""]]);
}

#[test]
fn yaml_and_none() {
    check(
        Output::value(json!({"b": [1, "x"], "a": {"c": null}})),
        Format::Yaml,
        None,
        expect![[r#"
        a:
          c: null
        b:
        - 1
        - x
    "#]],
    );
    check(Output::value(json!({"b": 1})), Format::None, None, expect![[""]]);
}

#[test]
fn colour_changes_nothing_but_colour() {
    let global = Global { output: Format::Jsonc, ..Global::default() };
    let value = json!({"a \"b\": ": "x: \"y\"", "n": [1, "s"], "e": {}});
    let colored = Output::value(value.clone()).render(&global, true).unwrap();
    let mut plain = String::new();
    let mut rest = colored.as_str();
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    plain.push_str(rest);
    assert_eq!(serde_json::from_str::<Value>(&plain).unwrap(), value);
    assert!(colored.contains("\x1b["));
}
