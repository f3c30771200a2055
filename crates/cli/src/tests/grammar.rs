//! What the guide writes for az parses here.

use clap::{CommandFactory, Parser};

use crate::Command;

#[derive(Debug, Parser)]
#[command(name = "portolan", infer_long_args = true)]
struct Root {
    #[command(subcommand)]
    #[allow(dead_code, reason = "only parsed")]
    command: Command,
}

/// Split as a shell would, without quoting rules beyond `"…"`.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn parse(line: &str) -> Result<Root, clap::Error> {
    Root::try_parse_from(words(line))
}

#[test]
fn the_tree_is_sound() {
    Root::command().debug_assert();
}

#[test]
fn lines_of_the_guide_parse() {
    for line in [
        "az group create --name rg-containers --location eastus",
        "az group delete --name rg --yes --no-wait",
        "az group exists -n rg",
        "az acr create --resource-group rg --name myreg --sku Basic",
        "az acr create --resource-group rg --name myreg --sku Standard",
        "az acr create --resource-group rg --name myreg --sku Basic --admin-enabled true",
        "az acr create -g rg -n myreg --sku premium -l \"East US\" --tags a=b c",
        "az acr show --name myreg --resource-group rg",
        "az acr show --name myreg --query loginServer --output tsv",
        "az acr list --output table",
        "az acr check-name -n myreg",
        "az acr show-usage -n myreg -o table",
        "az acr login --name myreg",
        "az acr login -n myreg --expose-token",
        "az acr login -n myreg -t --output tsv --query accessToken",
        "az acr update --name myreg --admin-enabled true",
        "az acr update -n myreg --admin-enabled",
        "az acr update -n myreg --sku Premium --tags \"\"",
        "az acr credential show --name myreg",
        "az acr credential show --name myreg --query passwords[0].value -o tsv",
        "az acr credential renew -n myreg --password-name password2",
        "az acr build --registry myreg --image flask-echo:v1.0.0 .",
        "az acr build --registry myreg --image flask-echo:v1.0.0 --file Dockerfile .",
        "az acr build --registry myreg --image flask-echo:v1.0.0 ./containers/examples/flask-echo",
        "az acr build --registry myreg --image a:v1 --image a:latest --image a:stable .",
        "az acr build --registry myreg --image a:v1 --build-arg PYTHON_VERSION=3.10 --build-arg APP_ENV=production .",
        "az acr build --registry myreg --image a:v1 https://github.com/yourusername/yourrepo.git",
        "az acr build --registry myreg --image a:dev https://github.com/yourusername/yourrepo.git#main:containers/flask-echo",
        "az acr build --registry myreg --image a:v1 --platform linux/amd64 .",
        "az acr build --registry myreg --image a:v1 --platform linux/amd64,linux/arm64 .",
        "az acr build --registry myreg --image flask-echo:{{.Run.ID}} https://github.com/yourusername/yourrepo.git",
        "az acr build -r myreg . --no-push --timeout 600 --target builder --no-logs --no-format --auth-mode Default",
        "az acr build -r myreg -t a:v1 --secret-build-arg TOKEN=x --no-wait -",
        "az acr repository list --name myreg --output table",
        "az acr repository show-tags --name myreg --repository flask-echo --output table",
        "az acr repository show-tags --name myreg --repository flask-echo --detail --output table",
        "az acr repository show-tags --name myreg --repository flask-echo --orderby time_desc --output table",
        "az acr repository show --name myreg --image flask-echo:latest",
        "az acr repository show --name myreg --image flask-echo:latest --query digest --output tsv",
        "az acr repository show -n myreg --repository flask-echo",
        "az acr repository update -n myreg --image flask-echo:v1 --write-enabled false --delete-enabled false",
        "az acr repository delete --name myreg --image flask-echo:v1.0.0 --yes",
        "az acr repository delete --name myreg --repository flask-echo --yes",
        "az acr repository untag -n myreg --image flask-echo:v1",
        "az acr repository show-manifests --name myreg --repository flask-echo --query \"[?tags[0]==null].digest\" --output tsv",
        "az acr manifest list-metadata -r myreg -n flask-echo",
        "az acr manifest show localhost:8443/flask-echo:v1 --raw",
        "az acr task logs --registry myreg",
        "az acr task logs --registry myreg --run-id cb1",
        "az acr task list-runs --registry myreg --output table",
        "az acr task list-runs -r myreg --run-status failed --top 5 --image a:v1",
        "az acr task show-run -r myreg --run-id cb1",
        "az acr task cancel-run -r myreg --run-id cb1",
        "az acr cache create -r myreg -n hub -s docker.io/library/* -t hub/*",
        "az acr cache list -r myreg -o table",
        "az acr cache delete -r myreg -n hub -y",
        "az login --service-principal -u id -p secret --tenant t --server https://h:8443",
        "az account show -o jsonc",
        "az logout",
        "az version --out yaml",
        "portolan login --bootstrap data/bootstrap.json",
        "portolan azure-cli setup --bootstrap data/bootstrap.json",
        "portolan acr pull localhost:8443/flask-echo:v1 --to out",
        "portolan acr build -r myreg -t a:v1 . --verbose --debug --only-show-errors",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}\n{error}");
        }
    }
}

#[test]
fn what_does_not_parse_says_why() {
    for (line, why) in [
        ("az acr build .", "--registry <REGISTRY>"),
        ("az acr build -r myreg", "<SOURCE>"),
        ("az acr create -g rg -n myreg --sku Gold", "Premium"),
        ("az acr create -g rg -n myreg", "--sku"),
        ("az acr repository show -n myreg", "--repository <NAME>|--image <IMAGE>"),
        ("az acr repository delete -n myreg --image a:v1 --repository a", "cannot be used with"),
        ("az acr repository list -n myreg --query \"[?id contains(@, 'x')]\"", "JMESPath"),
        ("az acr repository lst -n myreg", "'list'"),
        ("az acr update -n myreg --admin-enabled maybe", "true or false"),
        ("az acr task list-runs -r myreg --top 0", "--top"),
        ("az acr list -o xml", "table"),
        ("portolan login --bootstrap f --server s", "cannot be used with"),
    ] {
        let error = parse(line).expect_err(line);
        let text = error.to_string();
        assert!(text.contains(why), "{line}\n{text}");
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}
