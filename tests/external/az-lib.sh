# The real Azure CLI, installed once, pointed at the server under test. Source it after
# lib.sh; `real_az` defines the function az and signs it in.
# shellcheck shell=bash

AZ_VENV=${PORTOLAN_AZ_VENV:-${CARGO_TARGET_DIR:-$PWD/target}/az-venv}
if [ ! -x "$AZ_VENV/bin/az" ]; then
    echo "installing azure-cli 2.91.0" >&2
    rm -rf "$AZ_VENV"
    python3 -m venv "$AZ_VENV"
    "$AZ_VENV/bin/pip" install --quiet --disable-pip-version-check azure-cli==2.91.0
fi

# A value of bootstrap.json.
field() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" "$BOOTSTRAP"; }

# az_environment DIR: a profile of az's own in DIR, and trust in the server's CA.
az_environment() {
    az() { "$AZ_VENV/bin/az" "$@"; }
    export AZURE_CONFIG_DIR=$1 AZURE_CORE_COLLECT_TELEMETRY=no AZURE_CORE_INSTANCE_DISCOVERY=false
    export AZURE_CORE_ONLY_SHOW_ERRORS=true
    cat /etc/ssl/certs/ca-certificates.crt "$CA" >"$WORK/az-ca.pem" 2>/dev/null || cp "$CA" "$WORK/az-ca.pem"
    export REQUESTS_CA_BUNDLE=$WORK/az-ca.pem
}

# real_az: az, signed in as the owner.
real_az() {
    az_environment "$WORK/azure-$(basename "$0" .sh)"
    az cloud register -n portolan --endpoint-resource-manager "$SERVER" >/dev/null
    az cloud set -n portolan
    az login --service-principal -u "$(field clientId)" -p "$(field clientSecret)" --tenant "$(field tenantId)" >/dev/null
}

# az_as PROFILE ARGS…: az in another profile of this script, in the same cloud; so that somebody
# else may be signed in beside the owner.
az_as() {
    local AZURE_CONFIG_DIR=$WORK/azure-$(basename "$0" .sh)-$1
    export AZURE_CONFIG_DIR
    shift
    if [ ! -d "$AZURE_CONFIG_DIR" ]; then
        "$AZ_VENV/bin/az" cloud register -n portolan --endpoint-resource-manager "$SERVER" >/dev/null
        "$AZ_VENV/bin/az" cloud set -n portolan
    fi
    "$AZ_VENV/bin/az" "$@"
}

# forget PROFILE…: nobody is signed in there any more.
forget() {
    local p
    for p in "$@"; do rm -rf "$WORK/azure-$(basename "$0" .sh)-$p"; done
}
