# Signing in at an organisation's own provider: with the real az, and oidc-provider, a certified
# OpenID provider, with its default pages and tokens.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"
OPENID_PROVIDER=${OPENID_PROVIDER:-$(tool openid-provider)}
export OPENID_PROVIDER
# shellcheck source=tests/external/az-lib.sh
. "$(dirname "$0")/az-lib.sh"
# shellcheck source=tests/external/world-lib.sh
. "$(dirname "$0")/world-lib.sh"
real_az
tenant=$(field tenantId)
az group create --name "$GROUP" --location eastus >/dev/null
az acr create --name "$REG" --resource-group "$GROUP" --sku Standard >/dev/null
scope=$(az acr show --name "$REG" --query id -o tsv)

port=8800
node tests/external/openid/provider.mjs "$OPENID_PROVIDER" $port portolan s3cret-of-the-client "$SERVER/common/oauth2/v2.0/callback" >"$WORLD/provider.log" 2>&1 &
provider_pid=$!
trap 'kill "$provider_pid" 2>/dev/null; _world_end' EXIT
eventually "a provider" 20 grep -q ready "$WORLD/provider.log"
printf 's3cret-of-the-client\n' >"$WORLD/client-secret"
chmod 600 "$WORLD/client-secret"
serve_with() {
    world_serve PORTOLAN_OPENID_ISSUER=http://127.0.0.1:$port PORTOLAN_OPENID_CLIENT_ID=portolan \
        PORTOLAN_OPENID_CLIENT_SECRET_FILE="$WORLD/client-secret" PORTOLAN_OPENID_NAME="Example Corp" "$@"
}

browser=$PWD/tests/external/sdk/browser.py
export BROWSER_LINK="Continue with Example Corp" BROWSER_PASSWORD=whatever
# by_browser PROFILE USER: az login with a browser, at the provider.
by_browser() {
    BROWSER_USER=$2 BROWSER="$AZ_VENV/bin/python $browser %s &" az_as "$1" login --tenant "$tenant" --allow-no-subscriptions
}
# page USER: what the pages say at last to somebody who signs in for a device.
page() {
    local code
    code=$(curl -sS --cacert "$CA" "$SERVER/$tenant/oauth2/v2.0/devicecode" \
        -d client_id=04b07795-8ddb-461a-bbee-02f9e1bf7b46 -d scope="$SERVER/.default offline_access" |
        sed -E 's/.*"user_code":"([^"]*)".*/\1/')
    BROWSER_USER=$1 BROWSER_CODE=$code "$AZ_VENV/bin/python" "$browser" "$SERVER/devicelogin" 2>&1 | tail -n 1
}

serve_with PORTOLAN_OPENID_CREATE_USERS=true PORTOLAN_OPENID_REQUIRED_CLAIM=groups=registry-users
check "az login with a browser, at the organisation's provider" by_browser grace grace@example.com
equals "she is a user now" grace@example.com "$(az ad user list --query "[?userPrincipalName=='grace@example.com'].userPrincipalName" -o tsv)"
equals "without a role she sees nothing" "" "$(az_as grace acr list --query '[].name' -o tsv 2>/dev/null)"
check "a role for her" az role assignment create --assignee grace@example.com --role AcrPush --scope "$scope"
says "she gets a token for the registry" '"accessToken": "ey' az_as grace acr login --name "$REG.azurecr.io" --expose-token
says "the same user the next time" '^1$' az ad user list --query "length([?userPrincipalName=='grace@example.com'])" -o tsv
check "who signs in again" by_browser grace2 grace@example.com
says "and once more for a device" "You are signed in" page grace@example.com
says "who is not in the group is refused" "does not say that you may sign in here" page kay@example.com
says "an address that is not verified is refused" "has not verified your e-mail address" page unverified@example.com

serve_with PORTOLAN_OPENID_CREATE_USERS=true PORTOLAN_OPENID_DOMAINS=example.com
says "another domain is refused" "may not sign in here" page eve@example.org
says "of this domain all may come" "You are signed in" page kay@example.com
check "a user of this server" az ad user create --display-name Lin --user-principal-name lin@example.com --password 'Correct-Horse-9-Battery'
says "is not who the provider says" "There is a user of your name here already" page lin@example.com
serve_with PORTOLAN_OPENID_LINK_USERS=true PORTOLAN_SIGN_IN_PASSWORDS=false
says "unless the operator says so" "You are signed in" page lin@example.com
says "nobody new comes then" "You are not a user here" page new@example.com
refuses "nor with a password" "AADSTS50034" az_as password login -u lin@example.com -p 'Correct-Horse-9-Battery' --tenant "$tenant"

check "somebody is disabled here" az ad user update --id grace@example.com --account-enabled false
says "and comes in no more" "disabled" page grace@example.com
# az shows the token that it has; the registry takes it no more.
refuses "nor does what was signed in" "no longer valid" az_as grace acr login --name "$REG.azurecr.io" --expose-token
