# Azure's libraries for JavaScript: @azure/container-registry and @azure/arm-containerregistry
# with @azure/identity.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"
# Looked for, and installed, where there is a network.
AZURE_JS=${AZURE_JS:-$(tool azure-js)}
export AZURE_JS
# shellcheck source=tests/external/sdk-lib.sh
. "$(dirname "$0")/sdk-lib.sh"
public_registry
for script in registry management; do
    node "tests/external/sdk/$script.mjs" || fail "the script $script.mjs ends well"
done
