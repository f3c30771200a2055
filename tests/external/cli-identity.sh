# Our own command line over identity, access and the control plane: all ways to sign in, the
# directory, roles, repository tokens, policies, locks, the activity log; and a real az made
# ready by it.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"
p() { "$PORTOLAN" "$@"; }
# as NAME …: with a profile of its own, which knows the server.
as() {
    local who=$1
    shift
    PORTOLAN_CONFIG_DIR=$WORK/profile-$who "$PORTOLAN" "$@"
}
login_as() {
    local who=$1
    shift
    as "$who" login --server "$SERVER" --ca-file "$CA" "$@"
}
json() { python3 -c 'import json,sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
not() { ! "$@"; }
field() { json "$1" <"$BOOTSTRAP"; }
guid='^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
tenant=$(field tenantId)
group=rg-cli-identity
reg=cliidentity
p group create --name $group --location eastus --tags cli=one -o none
p acr create --name $reg --resource-group $group --sku Premium -o none
scope=$(p acr show --name $reg --query id -o tsv)

# --- accounts
says "account show names who it is" '"type": "servicePrincipal"' p account show
says "account list as a table" 'IsDefault' p account list -o table
check "account set" p account set --subscription "$(p account show --query id -o tsv)"
refuses "of none that there is" "doesn't exist" p account set -n nosuch
says "get-access-token" '"tokenType": "Bearer"' p account get-access-token --resource-type ms-graph

# --- groups
says "group list by tag" "$group" p group list --tag cli=one -o tsv
equals "by a tag of none" "[]" "$(p group list --tag cli=two)"
says "group update" '"cli": "two"' p group update --name $group --set tags.cli=two
equals "group exists" false "$(p group exists -n nosuchgroup)"

# --- service principals
out=$(p ad sp create-for-rbac --name "cli robot" --role acrpull --scopes "$scope" --only-show-errors) || fail "create-for-rbac" "$out"
ok "create-for-rbac"
app=$(json appId <<<"$out") secret=$(json password <<<"$out")
equals "ad sp list finds it by name" "$app" "$(p ad sp list --display-name "cli robot" --query '[].appId' -o tsv)"
says "as a table" 'DisplayName +Id +AppId +CreatedDateTime' p ad sp list --display-name "cli robot" -o table
oid=$(p ad sp show --id "$app" --query id -o tsv)
says "its role is listed" "AcrPull" p role assignment list --scope "$scope" --assignee "$app" -o table
check "login with a secret" login_as robot --service-principal -u "$app" -p "$secret" --tenant "$tenant"
printf '%s\n' "$secret" >"$WORK/robot-secret"
check "with one from a file" login_as robot --service-principal -u "$app" -p "@$WORK/robot-secret" --tenant "$tenant"
check "with one from stdin" login_as robot --service-principal -u "$app" --tenant "$tenant" <"$WORK/robot-secret"
says "which gets a token for docker" '"refreshToken"' as robot acr login --name $reg --expose-token
refuses "and may do no more than its role" "AuthorizationFailed|could not be found" as robot acr update -n $reg --admin-enabled
new=$(p ad sp credential reset --id "$app" --query password -o tsv 2>/dev/null)
check "credential reset" login_as robot --service-principal -u "$app" -p "$new" --tenant "$tenant"
refuses "ends the password before" "AADSTS7000215" login_as old --service-principal -u "$app" -p "$secret" --tenant "$tenant"
says "credential list" '"keyId"' p ad sp credential list --id "$app"
file=$(p ad sp credential reset --id "$app" --append --create-cert --query fileWithCertAndPrivateKey -o tsv 2>/dev/null) ||
    fail "credential reset --create-cert"
equals "the key is its owner's alone" 600 "$(stat -c %a "$file")"
check "login with a certificate" login_as cert --service-principal -u "$app" --certificate "$file" --tenant "$tenant"
says "as the same" "$app" as cert account show --query user.name -o tsv
check "which works" as cert acr login --name $reg --expose-token
sed '/BEGIN CERTIFICATE/,$d' "$file" >"$WORK/no-cert.pem"
refuses "a file without the certificate is told" "no certificate" login_as bad --service-principal -u "$app" --certificate "$WORK/no-cert.pem" --tenant "$tenant"
check "disable it" p ad sp update --id "$app" --set accountEnabled=false
refuses "it signs in no more" "AADSTS" login_as old --service-principal -u "$app" -p "$new" --tenant "$tenant"
check "enable it" p ad sp update --id "$app" --set accountEnabled=true
check "delete it" p ad sp delete --id "$app"
refuses "it is gone" "doesn't exist|does not exist|not found" p ad sp show --id "$oid"
p ad sp show --id "$oid" >/dev/null 2>&1 && code=0 || code=$?
equals "with exit code 3" 3 "$code"
check "and its application" p ad app delete --id "$app"

# --- applications
made=$(p ad app create --display-name "cli tool" --query appId -o tsv) || fail "app create"
says "app create" "$guid" printf '%s' "$made"
check "app update" p ad app update --id "$made" --display-name "cli tool two"
equals "app show" "cli tool two" "$(p ad app show --id "$made" --query displayName -o tsv)"
cat >"$WORK/federated.json" <<JSON
{"name": "deploy", "issuer": "https://token.actions.example", "subject": "repo:acme/app", "audiences": ["api://AzureADTokenExchange"]}
JSON
check "federated-credential create" p ad app federated-credential create --id "$made" --parameters "@$WORK/federated.json"
equals "federated-credential list" deploy "$(p ad app federated-credential list --id "$made" --query '[].name' -o tsv)"
check "federated-credential delete" p ad app federated-credential delete --id "$made" --federated-credential-id deploy
check "app delete" p ad app delete --id "$made"

# --- users
password='Correct-Horse-9-Battery'
check "user create" p ad user create --display-name "Grace Hopper" --user-principal-name grace@example.com --password "$password"
says "user list" grace@example.com p ad user list --display-name Grace --query '[].userPrincipalName' -o tsv
check "a role by the user's name" p role assignment create --assignee grace@example.com --role Reader --scope "$scope"
check "login by name and password" login_as grace -u grace@example.com -p "$password" --tenant "$tenant"
says "as a user" '"type": "user"' as grace account show
says "who is signed in" 'grace@example.com' as grace ad signed-in-user show
says "with the role" "$reg" as grace acr list --query '[].name' -o tsv
refuses "a wrong password is refused" "AADSTS50126" login_as other -u grace@example.com -p wrong --tenant "$tenant"
login_as device --use-device-code --tenant "$tenant" -o none 2>"$WORK/device" &
waiting=$!
eventually "a device code is shown" 20 grep -q devicelogin "$WORK/device"
kill $waiting && wait $waiting 2>/dev/null || true
check "user update: another password" p ad user update --id grace@example.com --password "${password}2"
eventually "ends the sign-in" 5 not as grace account get-access-token --resource "$SERVER"
check "delete the user" p ad user delete --id grace@example.com

# --- roles
says "role definition list" '"roleName": "AcrPull"' p role definition list --name acrpull
cat >"$WORK/role.json" <<JSON
{"Name": "Cli Lister", "Description": "sees registries", "Actions": ["Microsoft.ContainerRegistry/registries/read"],
 "AssignableScopes": ["$(dirname "$(dirname "$(dirname "$(dirname "$scope")")")")"]}
JSON
says "role definition create" '"roleType": "CustomRole"' p role definition create --role-definition "@$WORK/role.json"
says "listed as a custom one" "Cli Lister" p role definition list --custom-role-only true -o table --scope "$scope"
check "role definition delete" p role definition delete --name "Cli Lister" --scope "$scope"
refuses "of none that there is" "No definition was found" p role definition delete --name "Cli Lister" --scope "$scope"
refuses "a role that is not there" "doesn't exist" p role assignment create --assignee-object-id "$oid" --role nosuch --scope "$scope"
refuses "an empty assignee does not mean all" "empty string" p role assignment delete --assignee ""

# --- repository tokens and scope maps
says "scope-map create" '"repositories/team/app/content/write"' p acr scope-map create --name team-map --registry $reg \
    --repository team/app content/read content/write --repository other content/read --description "the team"
says "scope-map update" 'repositories/samples/\*/content/read' p acr scope-map update --name team-map --registry $reg \
    --add-repository 'samples/*' content/read --remove-repository other content/read
says "scope-map list" '^team-map +UserDefined' p acr scope-map list --registry $reg -o table
out=$(p acr token create --name ci-token --registry $reg --scope-map team-map 2>"$WORK/token.err") || fail "token create" "$(cat "$WORK/token.err")"
ok "token create"
one=$(python3 -c 'import json,sys; print(json.load(sys.stdin)["credentials"]["passwords"][0]["value"])' <<<"$out")
if grep -qF "$one" "$WORK/token.err"; then fail "says its password on stdout only"; else ok "says its password on stdout only"; fi
refuses "the token never sees the catalogue" "denied|unauthorized|DENIED|UNAUTHORIZED" p acr repository list -n $reg -u ci-token -p "$one"
says "token list" '^ci-token +team-map +Never +Never +Enabled' p acr token list --registry $reg -o table
says "token credential generate" 'PASSWORD1 EXPIRY' p acr token credential generate --name ci-token --registry $reg --password1 --expiration-in-days 3 -o table
check "token credential delete" p acr token credential delete --name ci-token --registry $reg --password2
refuses "twice is an error" "doesn't exist" p acr token credential delete --name ci-token --registry $reg --password2
check "token update" p acr token update --name ci-token --registry $reg --status disabled
says "a token with a map of its own" 'quick-token-scope-map' p acr token create --name quick-token --registry $reg --repository 'samples/*' content/read metadata/read
check "the same again is the same" p acr token create --name quick-token --registry $reg --repository 'samples/*' content/read metadata/read
refuses "with other rights it is not" "already configured" p acr token create --name quick-token --registry $reg --repository 'samples/*' content/read
for t in ci-token quick-token; do check "token delete $t" p acr token delete --name $t --registry $reg --yes; done
for m in team-map quick-token-scope-map; do check "scope-map delete $m" p acr scope-map delete --name $m --registry $reg --yes; done
refuses "deleting asks first" "Use --yes" p acr scope-map delete --name team-map --registry $reg </dev/null

# --- the registry's settings
says "config retention update" '"days": 30' p acr config retention update --registry $reg --status enabled --days 30 --type UntaggedManifests
says "config retention show" '"status": "enabled"' p acr config retention show --registry $reg
says "config soft-delete show" '"retentionDays"' p acr config soft-delete show --registry $reg
says "config authentication-as-arm show" '"status": "enabled"' p acr config authentication-as-arm show --registry $reg
says "config content-trust show" '"status": "disabled"' p acr config content-trust show --registry $reg
says "network-rule add" '"ipAddressOrRange": "127.0.0.0/8"' p acr network-rule add --name $reg --ip-address 127.0.0.0/8
says "network-rule list" '127.0.0.0/8' p acr network-rule list --name $reg
says "network-rule remove" '"ipRules": \[\]' p acr network-rule remove --name $reg --ip-address 127.0.0.0/8

# --- a host of its own, and who holds how much
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=images.example.test \
    -addext subjectAltName=DNS:images.example.test -keyout "$WORK/host-key.pem" -out "$WORK/host.pem" 2>/dev/null
host_port=${LOGIN_SERVER##*:}
at_host() {
    curl -sS -o /dev/null -w '%{http_code}' --cacert "$WORK/host.pem" \
        --resolve "images.example.test:$host_port:127.0.0.1" "https://images.example.test:$host_port/v2/"
}
refuses "a certificate of another name is refused" "InvalidCertificate" p acr custom-domain create -r $reg \
    -n other.example.test --certificate-file "$WORK/host.pem" --key-file "$WORK/host-key.pem"
says "custom-domain create" '"hostName": "images.example.test"' p acr custom-domain create -r $reg \
    -n images.example.test --certificate-file "$WORK/host.pem" --key-file "$WORK/host-key.pem"
equals "the registry answers there, with that certificate" 401 "$(at_host)"
equals "custom-domain list" images.example.test "$(p acr custom-domain list -r $reg --query '[].name' -o tsv)"
says "custom-domain show" 'CN=images.example.test' p acr custom-domain show -r $reg -n images.example.test
check "custom-domain delete" p acr custom-domain delete -r $reg -n images.example.test --yes
refuses "and then it answers there no more" "certificate|SSL|alert" at_host
says "show-usage of each repository" '^busybox +[0-9]+ +[0-9]+ +[0-9]+' p acr show-usage -n "$REG" --repositories -o table
says "acr update --set" '"owner": "me"' p acr update --name $reg --set tags.owner=me --query tags
says "anonymous pull" '"anonymousPullEnabled": true' p acr update --name $reg --anonymous-pull-enabled
says "show-endpoints" "LoginServer +Region +Endpoint" p acr show-endpoints --name $reg -o table
says "show-usage" '^Size +[0-9]+ +0 +Bytes' p acr show-usage --name $reg -o table
equals "private-endpoint-connection list" "[]" "$(p acr private-endpoint-connection list --registry-name $reg)"
says "check-health passes" "Fetch access token for registry .* : OK" p acr check-health --name $reg --ignore-errors --yes
says "check-health of a repository" "Fetch access token for repository 'app' .* : OK" p acr check-health --name $reg --repository app --ignore-errors --yes

# --- managed identities
principal=$(p identity create --name builder --resource-group $group --query principalId -o tsv) || fail "identity create"
says "identity create" "$guid" printf '%s' "$principal"
secret=$(p identity generate-secret --name builder --resource-group $group -o json) || fail "identity generate-secret" "$secret"
ok "identity generate-secret"
managed() { IDENTITY_ENDPOINT=$(json identityEndpoint <<<"$secret") IDENTITY_HEADER=$(json identityHeader <<<"$secret") as managed "$@"; }
check "login as a managed identity" managed login --server "$SERVER" --ca-file "$CA" --identity --allow-no-subscriptions
says "as one" 'systemAssignedIdentity' managed account show
equals "identity list" builder "$(p identity list --resource-group $group --query '[].name' -o tsv)"
says "identity federated-credential create" '"subject": "system:serviceaccount:default:web"' p identity federated-credential create --name web \
    --identity-name builder --resource-group $group --issuer https://cluster.example --subject system:serviceaccount:default:web --audiences api://AzureADTokenExchange
check "identity federated-credential delete" p identity federated-credential delete --name web --identity-name builder --resource-group $group --yes
says "acr identity assign" 'UserAssigned' p acr identity assign --name $reg --identities builder --query identity.type
says "acr identity show" 'userAssignedIdentities/builder' p acr identity show --name $reg
check "acr identity remove" p acr identity remove --name $reg --identities builder
check "identity delete" p identity delete --name builder --resource-group $group

# --- locks, plans, the log
says "lock create" '"level": "CanNotDelete"' p lock create --name keep --lock-type CanNotDelete --resource-group $group --resource $reg --resource-type Microsoft.ContainerRegistry/registries --notes "not by accident"
refuses "what is locked is not deleted" "ScopeLocked" p acr delete --name $reg --yes
says "lock list" keep p lock list --resource-group $group --query '[].name' -o tsv
says "lock update" '"notes": "still"' p lock update --name keep --notes still --resource-group $group --resource $reg --resource-type Microsoft.ContainerRegistry/registries
check "lock delete" p lock delete --ids "$(p lock list --resource-group $group --query '[0].id' -o tsv)"
says "group lock create" '"level": "ReadOnly"' p group lock create --name still --resource-group $group --lock-type ReadOnly
check "group lock delete" p group lock delete --name still --resource-group $group
says "security pricing create" '"pricingTier": "Standard"' p security pricing create --name ContainerRegistry --tier Standard
says "security assessment list" "^\\[" p security assessment list
says "monitor activity-log list" 'Microsoft.ContainerRegistry/registries/write' p monitor activity-log list --resource-group $group --query '[].operationName.value' -o tsv
says "what failed" 'Failed' p monitor activity-log list --resource-group $group --status Failed --max-events 1

# --- a real az, made ready in one command
if [ -n "${AZ:-}" ] || AZ=$(command -v az); then
    eval "$(p azure-cli setup --az "$AZ" 2>"$WORK/setup.err")" || fail "azure-cli setup" "$(cat "$WORK/setup.err")"
    says "azure-cli setup makes az ready" "$reg" "$AZ" acr list --query '[].name' -o tsv
fi

# --- the end
check "acr delete" p acr delete --name $reg --yes
check "group delete" p group delete --name $group --yes
check "logout" as robot logout
refuses "signs out" "Please run 'portolan login'" as robot acr list
