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
        "az ad sp create-for-rbac --name acr-service-principal --scopes /subscriptions/s/x --role acrpull --query password --output tsv",
        "az ad sp create-for-rbac -n x --years 2 --create-cert --json-auth",
        "az ad sp create-for-rbac",
        "az ad sp list --display-name acr-service-principal --query [].appId --output tsv",
        "az ad sp list --all --filter \"displayName eq 'x'\" -o table",
        "az ad sp list --spn api://x",
        "az ad sp show --id 11111111-2222-3333-4444-555555555555",
        "az ad sp create --id app",
        "az ad sp update --id app --set accountEnabled=false",
        "az ad sp delete --id app",
        "az ad sp credential reset --id app --append --display-name second --years 2",
        "az ad sp credential reset --id app --end-date 2030-12-31",
        "az ad sp credential list --id app --cert",
        "az ad sp credential delete --id app --key-id k",
        "az ad app create --display-name tool --identifier-uris api://a api://b --sign-in-audience AzureADMyOrg",
        "az ad app list --app-id app",
        "az ad app update --id app --display-name two",
        "az ad app show --id app",
        "az ad app delete --id app",
        "az ad app credential reset --id app --append",
        "az ad app federated-credential create --id app --parameters []",
        "az ad app federated-credential list --id app",
        "az ad app federated-credential show --id app --federated-credential-id deploy",
        "az ad app federated-credential delete --id app --federated-credential-id deploy",
        "az ad user create --display-name Ada --user-principal-name ada@example.com --password pw --force-change-password-next-sign-in false",
        "az ad user list --upn ada@example.com",
        "az ad user show --id ada@example.com",
        "az ad user update --id ada@example.com --account-enabled false",
        "az ad user delete --id ada@example.com",
        "az ad signed-in-user show",
        "az role assignment list --scope /subscriptions/s",
        "az role assignment list --all -o table",
        "az role assignment create --assignee a --role AcrPull --scope /subscriptions/s --condition c --condition-version 2.0 --description d",
        "az role assignment create --assignee-object-id a --assignee-principal-type ServicePrincipal --role AcrPull --scope /s",
        "az role assignment delete --assignee a --role AcrPull --scope /s --yes",
        "az role assignment delete --ids /a /b",
        "az role definition list --name AcrPull --custom-role-only false -g rg",
        "az role definition show --name g --scope /subscriptions/s",
        "az role definition delete --name mine",
        "az acr token create --name ci --registry myreg --repository team/app content/read content/write --repository other content/read --expiration-in-days 30",
        "az acr token create -n ci -r myreg --scope-map _repositories_pull --no-passwords true --status disabled",
        "az acr token list -r myreg -o table",
        "az acr token update -n ci -r myreg --status disabled --scope-map m",
        "az acr token credential generate -n ci -r myreg --password1 --expiration 2027-12-31T12:59:59Z",
        "az acr token credential delete -n ci -r myreg --password2",
        "az acr token delete -n ci -r myreg --yes",
        "az acr scope-map create -n team -r myreg --repository a content/read --gateway g config/read --description d",
        "az acr scope-map update -n team -r myreg --add-repository a content/write --remove-repository b content/read",
        "az acr scope-map update -n team -r myreg --add a content/write --remove b content/read",
        "az acr scope-map delete -n team -r myreg -y",
        "az acr check-health -n myreg --repository app --ignore-errors --yes",
        "az acr check-health",
        "az acr show-endpoints -n myreg",
        "az acr config retention update --registry myreg --status enabled --days 30 --type UntaggedManifests",
        "az acr config retention show -r myreg",
        "az acr config soft-delete update -r myreg --days 9 --status disabled --yes",
        "az acr config content-trust update -r myreg --status disabled",
        "az acr config authentication-as-arm update -r myreg --status disabled",
        "az acr network-rule add -n myreg --ip-address 10.0.0.0/8",
        "az acr network-rule list -n myreg",
        "az acr custom-domain create -r myreg -n images.example.com --certificate-file c.pem --key-file k.pem",
        "az acr custom-domain delete -r myreg -n images.example.com --yes",
        "az acr show-usage -n myreg --repositories -o table",
        "az acr identity assign -n myreg --identities [system] one",
        "az acr identity show -n myreg",
        "az acr encryption show -n myreg",
        "az acr private-endpoint-connection list --registry-name myreg",
        "az acr replication list --registry myreg --output table",
        "az acr update -n myreg --set tags.a=b --default-action deny --role-assignment-mode rbac-abac --regional-endpoints enabled",
        "az acr create -g rg -n myreg --sku Premium --zone-redundancy Enabled --dnl-scope Unsecure --endpoint-protocol IPv4 --allow-metadata-search --writable-cache-repos Enabled",
        "az identity create --name builder --resource-group rg",
        "az identity federated-credential create --name web --identity-name builder -g rg --issuer https://i --subject s --audiences a",
        "az identity federated-credential delete --name web --identity-name builder -g rg --yes",
        "az lock create --name keep --lock-type CanNotDelete --resource-group rg --resource myreg --resource-type Microsoft.ContainerRegistry/registries --notes n",
        "az lock list",
        "az lock delete --ids /a /b",
        "az group lock create -n keep -g rg --lock-type ReadOnly",
        "az account lock list",
        "az security pricing create --name ContainerRegistry --tier Standard",
        "az security assessment list",
        "az monitor activity-log list --resource-group rg --offset 1h --max-events 5 --status Failed",
        "az group create -n rg -l eastus --tags a=b --managed-by /x",
        "az group update -n rg --set tags.a=b",
        "az group list --tag team=one",
        "az login",
        "az login --use-device-code",
        "az login -u ada@example.com -p secret --server https://h:8443",
        "az login --service-principal -u id --certificate cert.pem --tenant t",
        "az login --service-principal -u id --federated-token tok --tenant t",
        "az login --identity --client-id c --server https://h",
        "az account set --subscription s",
        "az account set -n s",
        "az account get-access-token --resource-type ms-graph",
        "az logout --username a",
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
        ("az login --identity -u a", "cannot be used with"),
        ("az login --certificate c.pem", "--service-principal"),
        ("az ad sp create-for-rbac --role acrpull", "--scopes"),
        ("az role assignment list --assignee \"\"", "empty string"),
        ("az acr token create -n a -r r --expiration 2027-12-31", "datetime"),
        ("az acr token create -n a -r r --no-passwords --expiration-in-days 3", "cannot be used with"),
        ("az acr config retention update -r r --days 400 --type UntaggedManifests", "0..=365"),
        ("az acr config content-trust update -r r --status enabled", "disabled"),
        ("az lock create -n a --lock-type Never", "CanNotDelete"),
        ("az monitor activity-log list --offset soon", "span of time"),
    ] {
        let error = parse(line).expect_err(line);
        let text = error.to_string();
        assert!(text.contains(why), "{line}\n{text}");
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn a_flag_of_rules_needs_a_name() {
    let error = parse("az acr token create -n a -r r --repository").expect_err("a repository without a name");
    assert!(error.to_string().contains("--repository"), "{error}");
    assert_eq!(error.exit_code(), 2);
}
