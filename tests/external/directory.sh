# Applications, service principals, users and managed identities with the real az, and what
# those can do who were made, changed, disabled and deleted.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/external/az-lib.sh
. "$(dirname "$0")/az-lib.sh"
# shellcheck source=tests/external/world-lib.sh
. "$(dirname "$0")/world-lib.sh"
real_az
tenant=$(field tenantId)
az group create --name "$GROUP" --location eastus >/dev/null
az acr create --name "$REG" --resource-group "$GROUP" --sku Premium >/dev/null
scope=$(az acr show --name "$REG" --query id -o tsv)
guid='^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
json() { python3 -c 'import json,sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
# sp_login PROFILE ID SECRET: without subscriptions too, as a new service principal has none.
sp_login() {
    forget "$1"
    az_as "$1" login --service-principal -u "$2" -p "$3" --tenant "$tenant" --allow-no-subscriptions
}

# --- service principals
out=$(az ad sp create-for-rbac --name "ci robot" -o json 2>/dev/null) || fail "create-for-rbac without a role" "$out"
ok "create-for-rbac without a role"
app=$(json appId <<<"$out") secret=$(json password <<<"$out")
equals "names its tenant" "$tenant" "$(json tenant <<<"$out")"
check "it signs in, without any subscription" sp_login robot "$app" "$secret"
refuses "and may do nothing" "not found|AuthorizationFailed|could not be found|subscription" az_as robot acr show --name "$REG"
check "a role on the registry" az role assignment create --assignee "$app" --role AcrPull --scope "$scope"
check "with which it signs in" sp_login robot "$app" "$secret"
says "and gets a token for docker" '"accessToken"' az_as robot acr login --name "$REG.azurecr.io" --expose-token

says "show by application id" '"displayName": "ci robot"' az ad sp show --id "$app"
oid=$(az ad sp show --id "$app" --query id -o tsv)
equals "show by object id" "$app" "$(az ad sp show --id "$oid" --query appId -o tsv)"
equals "list by name" "$app" "$(az ad sp list --display-name "ci robot" --query '[].appId' -o tsv)"
equals "by the beginning of it" "$app" "$(az ad sp list --display-name "ci r" --query '[].appId' -o tsv)"
equals "by a filter" "$app" "$(az ad sp list --filter "displayName eq 'ci robot'" --query '[].appId' -o tsv)"
says "all of them" "$app" az ad sp list --all --query '[].appId' -o tsv
equals "of none" "[]" "$(az ad sp list --display-name "no such" -o json | tr -d ' \n')"
refuses "show one that is not there" "does not exist|not found" az ad sp show --id 00000000-0000-0000-0000-00000000dead
says "a name of other letters" "$guid" az ad sp create-for-rbac --name 'Büro & Söhne' --query appId -o tsv --only-show-errors
says "is found by it" "$guid" az ad sp list --display-name 'Büro &' --query '[].appId' -o tsv

again=$(az ad sp create-for-rbac --name "ci robot" --query '[appId,password]' -o tsv 2>/dev/null | xargs) || fail "create-for-rbac of the same name"
equals "create-for-rbac of the same name is the same application" "$app" "${again%% *}"
check "whose new password is good" sp_login robot "$app" "${again##* }"

# --- their credentials
new=$(az ad sp credential reset --id "$app" --query password -o tsv 2>/dev/null)
check "credential reset gives a password" sp_login robot "$app" "$new"
refuses "the old one is refused" "AADSTS7000215" sp_login old "$app" "$secret"
more=$(az ad sp credential reset --id "$app" --append --display-name second --years 2 --query password -o tsv 2>/dev/null)
check "credential reset --append adds one" sp_login robot "$app" "$more"
check "and the other stays" sp_login robot "$app" "$new"
equals "both are listed" 2 "$(az ad sp credential list --id "$app" --query 'length(@)' -o tsv)"
case $(az ad sp credential list --id "$app") in *"$more"* | *"$new"*) fail "and not shown" ;; *) ok "and not shown" ;; esac
key=$(az ad sp credential list --id "$app" --query "[?displayName=='second'].keyId" -o tsv)
check "credential delete" az ad sp credential delete --id "$app" --key-id "$key"
refuses "its password is refused" "AADSTS7000215" sp_login old "$app" "$more"
short=$(az ad app credential reset --id "$app" --append --end-date "$(date -u -d '+6 seconds' +%Y-%m-%dT%H:%M:%SZ)" --query password -o tsv 2>/dev/null)
eventually "a password that expires is refused then" 20 not sp_login old "$app" "$short"
says "as expired" "AADSTS7000222|expired" sh -c 'cat' <<<"$(sp_login old "$app" "$short" 2>&1 || true)"

# --- disabled and deleted
check "disable it" az ad sp update --id "$app" --set accountEnabled=false
refuses "it signs in no more" "AADSTS7000112|disabled" sp_login old "$app" "$new"
refuses "nor do the tokens that it has open anything" "AADSTS|disabled|unauthorized|401|expired|invalid" az_as robot acr show --name "$REG" --resource-group "$GROUP"
check "enable it" az ad sp update --id "$app" --set accountEnabled=true
check "it signs in again" sp_login robot "$app" "$new"
own=$(az ad app credential reset --id "$app" --append --query password -o tsv 2>/dev/null)
check "a password of the application" sp_login robot "$app" "$own"
check "delete the service principal" az ad sp delete --id "$app"
refuses "nobody signs in as it" "AADSTS7000215|AADSTS700016|AADSTS7000229" sp_login old "$app" "$new"
equals "it has no role either" "[]" "$(az role assignment list --scope "$scope" --query "[?principalId=='$oid']" -o json | tr -d ' \n')"
check "the application is still there" az ad app show --id "$app"
check "make a service principal of it" az ad sp create --id "$app"
check "which signs in with what is the application's" sp_login robot "$app" "$own"
refuses "and not with what was the other's" "AADSTS7000215" sp_login old "$app" "$new"

# --- applications
made=$(az ad app create --display-name tool --query appId -o tsv) || fail "app create"
says "app create" "$guid" printf '%s' "$made"
equals "app list" tool "$(az ad app list --app-id "$made" --query '[].displayName' -o tsv)"
check "app update" az ad app update --id "$made" --display-name "tool two"
equals "app show" "tool two" "$(az ad app show --id "$made" --query displayName -o tsv)"
says "app list --display-name" "$made" az ad app list --display-name tool --query '[].appId' -o tsv
cat >"$WORLD/federated.json" <<JSON
{"name": "deploy", "issuer": "https://token.actions.example", "subject": "repo:acme/app:ref:refs/heads/main",
 "description": "main deploys", "audiences": ["api://AzureADTokenExchange"]}
JSON
check "app federated-credential create" az ad app federated-credential create --id "$made" --parameters "@$WORLD/federated.json"
equals "list" deploy "$(az ad app federated-credential list --id "$made" --query '[].name' -o tsv)"
equals "show" "repo:acme/app:ref:refs/heads/main" "$(az ad app federated-credential show --id "$made" --federated-credential-id deploy --query subject -o tsv)"
sed -i 's/main deploys/changed/' "$WORLD/federated.json"
check "update" az ad app federated-credential update --id "$made" --federated-credential-id deploy --parameters "@$WORLD/federated.json"
equals "is kept" changed "$(az ad app federated-credential list --id "$made" --query '[].description' -o tsv)"
check "delete" az ad app federated-credential delete --id "$made" --federated-credential-id deploy
equals "is gone" "[]" "$(az ad app federated-credential list --id "$made" -o json | tr -d ' \n')"
check "app delete" az ad app delete --id "$made"
refuses "is gone" "does not exist|not found" az ad app show --id "$made"
check "deleting an application deletes its service principal" az ad app delete --id "$app"
refuses "which signs in no more" "AADSTS7000215|AADSTS700016" sp_login old "$app" "$own"

# --- users
password='Correct-Horse-9-Battery'
check "user create" az ad user create --display-name "Ada Lovelace" --user-principal-name ada@example.com --password "$password"
refuses "the same again" "already exists|ObjectConflict|conflict" az ad user create --display-name Other --user-principal-name ADA@example.com --password "$password"
refuses "a password of no worth" "password" az ad user create --display-name B --user-principal-name b@example.com --password abc
says "user show by name" '"displayName": "Ada Lovelace"' az ad user show --id ada@example.com
uid=$(az ad user show --id ada@example.com --query id -o tsv)
equals "by id" ada@example.com "$(az ad user show --id "$uid" --query userPrincipalName -o tsv)"
equals "user list --upn" "$uid" "$(az ad user list --upn ada@example.com --query '[].id' -o tsv)"
equals "user list --display-name" "$uid" "$(az ad user list --display-name Ada --query '[].id' -o tsv)"
equals "user list --filter" "$uid" "$(az ad user list --filter "startswith(userPrincipalName,'ada@')" --query '[].id' -o tsv)"
says "user list" 'ada@example.com' az ad user list -o table
check "a role by the user's name" az role assignment create --assignee ada@example.com --role Reader --scope "$scope"
login_user() {
    forget ada
    az_as ada login -u ada@example.com -p "$1" --tenant "$tenant"
}
check "the user signs in" login_user "$password"
says "and is who it is" 'ada@example.com' az_as ada ad signed-in-user show
says "with the role" "$REG" az_as ada acr list -o tsv --query '[].name'
refuses "and not more" "AuthorizationFailed" az_as ada acr update --name "$REG" --admin-enabled true
check "user update" az ad user update --id ada@example.com --display-name "Countess Lovelace"
equals "is kept" "Countess Lovelace" "$(az ad user show --id "$uid" --query displayName -o tsv)"
check "another password" az ad user update --id ada@example.com --password "${password}2"
refuses "the old one is refused" "AADSTS50126" login_user "$password"
check "the new one is good" login_user "${password}2"
check "disable the user" az ad user update --id ada@example.com --account-enabled false
refuses "who signs in no more" "AADSTS50057" login_user "${password}2"
check "delete the user" az ad user delete --id ada@example.com
refuses "who is gone" "does not exist|not found" az ad user show --id ada@example.com

# --- managed identities
says "identity create" "$guid" az identity create --name builder --resource-group "$GROUP" --query principalId -o tsv
says "with a client id" "$guid" az identity show --name builder --resource-group "$GROUP" --query clientId -o tsv
principal=$(az identity show --name builder --resource-group "$GROUP" --query principalId -o tsv)
equals "identity list" builder "$(az identity list --resource-group "$GROUP" --query '[].name' -o tsv)"
equals "in the subscription" builder "$(az identity list --query '[].name' -o tsv)"
check "a role for it" az role assignment create --assignee-object-id "$principal" --assignee-principal-type ServicePrincipal --role AcrPush --scope "$scope"
says "which is listed by its name" 'builder|AcrPush' az role assignment list --scope "$scope" -o table
says "federated-credential create" '"subject": "system:serviceaccount:default:web"' az identity federated-credential create --name web --identity-name builder \
    --resource-group "$GROUP" --issuer https://cluster.example --subject system:serviceaccount:default:web --audiences api://AzureADTokenExchange
equals "federated-credential list" web "$(az identity federated-credential list --identity-name builder --resource-group "$GROUP" --query '[].name' -o tsv)"
check "federated-credential delete" az identity federated-credential delete --name web --identity-name builder --resource-group "$GROUP" --yes
check "identity delete" az identity delete --name builder --resource-group "$GROUP"
refuses "is gone" "not found|ResourceNotFound" az identity show --name builder --resource-group "$GROUP"
equals "with its role" "[]" "$(az role assignment list --scope "$scope" --query "[?principalId=='$principal']" -o json | tr -d ' \n')"
