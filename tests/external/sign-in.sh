# Every way to sign in: with the real az, and with azure-identity for Python and
# JavaScript.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"
# Looked for, and installed, where there is a network.
AZURE_PYTHON=${AZURE_PYTHON:-$(tool azure-python)/bin/python} AZURE_JS=${AZURE_JS:-$(tool azure-js)}
export AZURE_PYTHON AZURE_JS
# shellcheck source=tests/external/az-lib.sh
. "$(dirname "$0")/az-lib.sh"
# shellcheck source=tests/external/world-lib.sh
. "$(dirname "$0")/world-lib.sh"
real_az
tenant=$(field tenantId) subscription=$(field subscriptionId)
az group create --name "$GROUP" --location eastus >/dev/null
az acr create --name "$REG" --resource-group "$GROUP" --sku Premium >/dev/null
scope=$(az acr show --name "$REG" --query id -o tsv)

# works WHAT PROFILE: who signed in there sees the registry and gets a token for it.
works() {
    equals "$1: sees the registry" "$REG" "$(az_as "$2" acr list --query '[].name' -o tsv 2>&1)"
    says "$1: and gets a token for it" '"accessToken": "ey' az_as "$2" acr login --name "$REG" --expose-token
}

# --- a service principal: secret, certificate, another issuer's token
out=$(az ad sp create-for-rbac --name robot --role Contributor --scopes "$scope" --query '[appId,password]' -o tsv 2>/dev/null | xargs) || fail "a service principal"
APP=${out%% *} APP_SECRET=${out##* }
check "az login with a secret" az_as secret login --service-principal -u "$APP" -p "$APP_SECRET" --tenant "$tenant"
works "a secret" secret
says "az account show" '"type": "servicePrincipal"' az_as secret account show
says "az account get-access-token" '"tokenType": "Bearer"' az_as secret account get-access-token
says "for registries" '"accessToken": "ey' az_as secret account get-access-token --resource https://containerregistry.azure.net
says "and for the directory" '"accessToken": "ey' az_as secret account get-access-token --resource-type ms-graph
refuses "a wrong secret" "AADSTS7000215" az_as wrong login --service-principal -u "$APP" -p nonsense --tenant "$tenant"
refuses "nobody's secret" "AADSTS7000215|AADSTS700016" az_as wrong login --service-principal -u 00000000-0000-0000-0000-00000000dead -p nonsense --tenant "$tenant"
refuses "another tenant" "AADSTS90002|tenant|not found" az_as wrong login --service-principal -u "$APP" -p "$APP_SECRET" --tenant 00000000-0000-0000-0000-00000000dead
check "az logout" az_as secret logout
refuses "forgets it" "az login" az_as secret acr list

openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=robot -keyout "$WORLD/robot.key" -out "$WORLD/robot.crt" 2>/dev/null
cat "$WORLD/robot.key" "$WORLD/robot.crt" >"$WORLD/robot.pem"
check "a certificate as a credential" az ad sp credential reset --id "$APP" --append --cert "@$WORLD/robot.crt"
check "az login with it" az_as certificate login --service-principal -u "$APP" --certificate "$WORLD/robot.pem" --tenant "$tenant"
works "a certificate" certificate
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=robot -keyout "$WORLD/other.key" -out "$WORLD/other.crt" 2>/dev/null
cat "$WORLD/other.key" "$WORLD/other.crt" >"$WORLD/other.pem"
refuses "another certificate" "AADSTS700027|certificate|AADSTS" az_as wrong login --service-principal -u "$APP" --certificate "$WORLD/other.pem" --tenant "$tenant"
pem=$(cd "$WORLD" && HOME=$WORLD az ad sp create-for-rbac --name "with cert" --create-cert --role Reader --scopes "$scope" --query '[appId,fileWithCertAndPrivateKey]' -o tsv 2>/dev/null | xargs) ||
    fail "create-for-rbac --create-cert" "$pem"
check "create-for-rbac --create-cert" az_as created login --service-principal -u "${pem%% *}" --certificate "${pem##* }" --tenant "$tenant"
works "its certificate" created

coproc ISSUER { exec "$AZ_VENV/bin/python" tests/external/sdk/issuer.py 8700; }
issuer_pid=$ISSUER_PID
trap 'kill "$issuer_pid" 2>/dev/null; _world_end' EXIT
read -r _ <&"${ISSUER[0]}"
issue() { # issue SUBJECT AUDIENCE SECONDS FILE
    echo "$*" >&"${ISSUER[1]}"
    read -r _ <&"${ISSUER[0]}"
}
cat >"$WORLD/federated.json" <<JSON
{"name": "deploy", "issuer": "http://127.0.0.1:8700", "subject": "repo:acme/app:ref:refs/heads/main", "audiences": ["api://AzureADTokenExchange"]}
JSON
check "a federated credential" az ad app federated-credential create --id "$APP" --parameters "@$WORLD/federated.json"
issue repo:acme/app:ref:refs/heads/main api://AzureADTokenExchange 600 "$WORLD/token"
check "az login with a token of that issuer" az_as federated login --service-principal -u "$APP" --tenant "$tenant" --federated-token "$(cat "$WORLD/token")"
works "a federated token" federated
issue repo:acme/app:ref:refs/heads/other api://AzureADTokenExchange 600 "$WORLD/bad"
refuses "of another subject" "AADSTS70021|AADSTS" az_as wrong login --service-principal -u "$APP" --tenant "$tenant" --federated-token "$(cat "$WORLD/bad")"
issue repo:acme/app:ref:refs/heads/main api://somebody-else 600 "$WORLD/bad"
refuses "for another audience" "AADSTS70021|AADSTS" az_as wrong login --service-principal -u "$APP" --tenant "$tenant" --federated-token "$(cat "$WORLD/bad")"
issue repo:acme/app:ref:refs/heads/main api://AzureADTokenExchange -600 "$WORLD/bad"
refuses "that has expired" "AADSTS" az_as wrong login --service-principal -u "$APP" --tenant "$tenant" --federated-token "$(cat "$WORLD/bad")"

# --- a user: password, device code, browser
export BROWSER_USER=ada@example.com BROWSER_PASSWORD='Correct-Horse-9-Battery'
az ad user create --display-name Ada --user-principal-name $BROWSER_USER --password "$BROWSER_PASSWORD" >/dev/null
az role assignment create --assignee $BROWSER_USER --role Contributor --scope "$scope" >/dev/null
browser=$PWD/tests/external/sdk/browser.py
check "az login with a password" az_as password login -u $BROWSER_USER -p "$BROWSER_PASSWORD" --tenant "$tenant"
works "a password" password
says "az account show" '"type": "user"' az_as password account show
says "az ad signed-in-user show" "\"userPrincipalName\": \"$BROWSER_USER\"" az_as password ad signed-in-user show
check "and without naming the tenant" az_as tenantless login -u $BROWSER_USER -p "$BROWSER_PASSWORD"
works "found in all tenants" tenantless
refuses "a wrong password" "AADSTS50126" az_as wrong login -u $BROWSER_USER -p nonsense --tenant "$tenant"
refuses "nobody's" "AADSTS50034|AADSTS50126" az_as wrong login -u nobody@example.com -p nonsense --tenant "$tenant"

device() { # device PROFILE ARGS…: az login --use-device-code, and the page in a browser
    local profile=$1 code pid
    shift
    : >"$WORLD/device"
    az_as "$profile" login --use-device-code "$@" >"$WORLD/device" 2>&1 &
    pid=$!
    eventually "$profile: az shows a code" 20 grep -Eq 'enter the code [A-Z0-9]+' "$WORLD/device"
    code=$(sed -En 's/.*enter the code ([A-Z0-9]+).*/\1/p' "$WORLD/device")
    check "$profile: its page takes it" env BROWSER_CODE="$code" "$AZ_VENV/bin/python" "$browser" "$SERVER/devicelogin"
    wait $pid || fail "$profile: az is signed in" "$(cat "$WORLD/device")"
    ok "$profile: az is signed in"
}
device device --tenant "$tenant"
works "a device code" device
device device-tenantless
works "a device code without a tenant" device-tenantless

BROWSER="$AZ_VENV/bin/python $browser %s &" az_as browser login --tenant "$tenant" >"$WORLD/browser" 2>&1 || fail "az login with a browser" "$(cat "$WORLD/browser")"
ok "az login with a browser"
works "a browser" browser
check "az account clear" az_as browser account clear

# A refresh token lasts until the password changes.
check "another password" az ad user update --id $BROWSER_USER --password "$BROWSER_PASSWORD-2"
# az still has an access token, which it would show; without it, it asks with its refresh token.
"$AZ_VENV/bin/python" - "$WORK/azure-$(basename "$0" .sh)-password/msal_token_cache.json" <<'PY'
import json, sys
cache = json.load(open(sys.argv[1]))
cache["AccessToken"] = {}
json.dump(cache, open(sys.argv[1], "w"))
PY
refuses "ends what was signed in with the old one" "AADSTS50173|AADSTS|expired|az login" az_as password account get-access-token
refuses "which is refused" "AADSTS50126" az_as wrong login -u $BROWSER_USER -p "$BROWSER_PASSWORD" --tenant "$tenant"
BROWSER_PASSWORD=$BROWSER_PASSWORD-2

# --- managed identities, as the three kinds of places where they are asked for
az identity create --name web --resource-group "$GROUP" >/dev/null
identity=$(az identity show --name web --resource-group "$GROUP" --query id -o tsv)
az role assignment create --assignee-object-id "$(az identity show --name web --resource-group "$GROUP" --query principalId -o tsv)" \
    --assignee-principal-type ServicePrincipal --role Contributor --scope "$scope" >/dev/null
out=$(az rest --method post --url "$SERVER$identity/generateEndpointSecret?api-version=2023-01-31" --query '[identityEndpoint,identityHeader,msiEndpoint,msiSecret]' -o tsv | xargs) ||
    fail "a managed identity's endpoint" "$out"
read -r IDENTITY_ENDPOINT IDENTITY_HEADER MSI_ENDPOINT MSI_SECRET <<<"$out"
# there PROFILE NAMES…: az login --identity, with these of the variables above.
there() {
    local profile=$1 names=()
    shift
    for name in "$@"; do names+=("$name=${!name}"); done
    as_there() { ([ ${#names[@]} = 0 ] || export "${names[@]}"; az_as "$profile" "$@"); }
    check "$profile: az login --identity" as_there login --identity
    equals "$profile: sees the registry" "$REG" "$(as_there acr list --query '[].name' -o tsv)"
    says "$profile: and gets a token for it" '"accessToken": "ey' as_there acr login --name "$REG" --expose-token
    says "$profile: az account show" 'MSI|systemAssignedIdentity' as_there account show
}
there app-service IDENTITY_ENDPOINT IDENTITY_HEADER
there msi MSI_ENDPOINT MSI_SECRET
# As on a machine in Azure: nothing is set, and the address says who asks.
client=$(az identity show --name web --resource-group "$GROUP" --query clientId -o tsv)
refuses "nobody at an address that is nobody's" "Identity not found|400|login" env AZURE_CONFIG_DIR="$WORLD/az-nobody" "$AZ_VENV/bin/az" login --identity
world_serve "PORTOLAN_MANAGED_IDENTITY_ADDRESSES=169.254.169.254=$client"
there machine
check "by its client id" az_as machine-client login --identity --client-id "$client"
check "by its resource id" az_as machine-resource login --identity --resource-id "$identity"
refuses "nobody has it who does not know its secret" "401|400|Unauthorized|secret|invalid" env IDENTITY_ENDPOINT="$IDENTITY_ENDPOINT" IDENTITY_HEADER=wrong \
    AZURE_CONFIG_DIR="$WORLD/az-wrong" "$AZ_VENV/bin/az" login --identity

# --- azure-identity, for Python and JavaScript
export APP APP_SECRET APP_PEM=$WORLD/robot.pem FEDERATED_TOKEN_FILE=$WORLD/token SERVER TENANT=$tenant SUBSCRIPTION=$subscription
export IDENTITY_ENDPOINT IDENTITY_HEADER NODE_EXTRA_CA_CERTS=$CA
mkdir -p "$WORLD/bin"
printf '#!/bin/sh\nunset IDENTITY_ENDPOINT IDENTITY_HEADER\nexec %s "$@"\n' "$AZ_VENV/bin/az" >"$WORLD/bin/az"
chmod +x "$WORLD/bin/az"
PATH=$WORLD/bin:$PATH "$AZURE_PYTHON" tests/external/sdk/identity.py || fail "the script identity.py ends well"
PATH=$WORLD/bin:$PATH node tests/external/sdk/identity.mjs || fail "the script identity.mjs ends well"
unset IDENTITY_ENDPOINT IDENTITY_HEADER

# --- portolan azure-cli setup
out=$(env -u AZURE_CONFIG_DIR -u REQUESTS_CA_BUNDLE PATH="$AZ_VENV/bin:$PATH" "$PORTOLAN" azure-cli setup --bootstrap "$BOOTSTRAP") ||
    fail "portolan azure-cli setup" "$out"
says "portolan azure-cli setup makes az ready" "$REG" sh -c 'eval "$1"; exec "$2" acr list --output table' - "$out" "$AZ_VENV/bin/az"
