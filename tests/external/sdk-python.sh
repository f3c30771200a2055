# Azure's libraries for Python: azure-containerregistry and azure-mgmt-containerregistry with
# azure-identity, and the ones for groups and roles.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"
# Looked for, and installed, where there is a network.
AZURE_PYTHON=${AZURE_PYTHON:-$(tool azure-python)/bin/python}
export AZURE_PYTHON
# shellcheck source=tests/external/sdk-lib.sh
. "$(dirname "$0")/sdk-lib.sh"
public_registry
sp=$("$PORTOLAN" ad sp create-for-rbac --name sdk --query appId -o tsv 2>/dev/null) || fail "a service principal for the libraries"
PRINCIPAL=$("$PORTOLAN" ad sp show --id "$sp" --query id -o tsv)
export PRINCIPAL
for script in registry management; do
    "$AZURE_PYTHON" "tests/external/sdk/$script.py" || fail "the script $script.py ends well"
done
