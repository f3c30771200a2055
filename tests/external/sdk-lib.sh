# What the tests of Azure's libraries share: a world with a registry, one that anybody may read,
# and the names under which the scripts in sdk/ know them. Source it after lib.sh.
# shellcheck shell=bash

# shellcheck disable=SC2034
world_names="sdkregistry.azurecr.io publicregistry.azurecr.io"
# shellcheck source=tests/external/az-lib.sh
. "$(dirname "$0")/az-lib.sh"
# shellcheck source=tests/external/world-lib.sh
. "$(dirname "$0")/world-lib.sh"

"$PORTOLAN" login --bootstrap "$BOOTSTRAP" -o none
"$PORTOLAN" group create --name "$GROUP" --location eastus -o none
"$PORTOLAN" acr create --resource-group "$GROUP" --name "$REG" --sku Premium -o none
# TENANT, SUBSCRIPTION, CLIENT_ID, CLIENT_SECRET: as the owner.
TENANT=$(field tenantId) SUBSCRIPTION=$(field subscriptionId) CLIENT_ID=$(field clientId) CLIENT_SECRET=$(field clientSecret)
export TENANT SUBSCRIPTION CLIENT_ID CLIENT_SECRET
cat /etc/ssl/certs/ca-certificates.crt "$CA" >"$WORLD/ca.pem" 2>/dev/null || cp "$CA" "$WORLD/ca.pem"
export REQUESTS_CA_BUNDLE=$WORLD/ca.pem NODE_EXTRA_CA_CERTS=$CA

# public_registry: ANONYMOUS, where anybody may pull public:v1.
public_registry() {
    "$PORTOLAN" acr create --resource-group "$GROUP" --name publicregistry --sku Standard -o none
    image "$WORLD/ctx" "for all"
    "$PORTOLAN" acr build -r publicregistry -t public:v1 "$WORLD/ctx" >"$WORLD/build.log" 2>&1 || fail "something for all to read" "$(cat "$WORLD/build.log")"
    "$PORTOLAN" acr update --name publicregistry --anonymous-pull-enabled true -o none
    export ANONYMOUS=publicregistry.azurecr.io
}
