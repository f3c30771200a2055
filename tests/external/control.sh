# The rest of the control plane with the real az: groups, the properties and limits of registries,
# network rules, locks, the activity log, usage, health.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck disable=SC2034
world_names='basicregistry.azurecr.io basicregistry.eastus.data.azurecr.io'
# shellcheck source=tests/external/az-lib.sh
. "$(dirname "$0")/az-lib.sh"
# shellcheck source=tests/external/world-lib.sh
. "$(dirname "$0")/world-lib.sh"
world_docker
real_az
json() { "$AZ_VENV/bin/python" -c "import json,sys; d=json.load(sys.stdin); print($1)"; }

# --- groups
says "group create with tags" '"team": "one"' az group create --name "$GROUP" --location eastus --tags team=one stage=test
equals "group exists" true "$(az group exists --name "$GROUP")"
equals "group exists, of none" false "$(az group exists --name nosuchgroup)"
says "group list by tag" "$GROUP" az group list --tag team=one --query '[].name' -o tsv
equals "by a tag of none" "[]" "$(az group list --tag team=two -o json | tr -d ' \n')"
says "group update" '"team": "two"' az group update --name "$GROUP" --set tags.team=two
equals "keeps the others" test "$(az group show --name "$GROUP" --query tags.stage -o tsv)"
says "group list as a table" "^$GROUP +eastus +Succeeded" az group list -o table
check "az account list" az account list
says "az account show" '"state": "Enabled"' az account show
says "az account list-locations" "$(az group show -n "$GROUP" --query location -o tsv)|local" az account list-locations --query '[].name' -o tsv
says "az provider show" '"registrationState": "Registered"' az provider show --namespace Microsoft.ContainerRegistry
refuses "a group of no valid name" "InvalidResourceGroup|invalid|does not conform|pattern" az group create --name 'bad.' --location eastus

# --- registries
says "check a name" '"nameAvailable": true' az acr check-name --name basicregistry
says "create Basic" '"name": "Basic"' az acr create --name basicregistry --resource-group "$GROUP" --sku Basic --tags a=b
says "with its tags" '"a": "b"' az acr show --name basicregistry
says "the name is taken" 'already in use' az acr check-name --name basicregistry
refuses "anonymous pull is not for Basic" "Standard|Premium|tier|SKU|sku" az acr update --name basicregistry --anonymous-pull-enabled true
refuses "nor are network rules" "Premium" az acr network-rule add --name basicregistry --ip-address 10.0.0.0/8
refuses "nor a data endpoint" "not supported for the SKU Basic" az acr update --name basicregistry --data-endpoint-enabled true
refuses "nor retention" "Premium" az acr config retention update --registry basicregistry --status enabled --days 3 --type UntaggedManifests
says "tags are changed" '"c": "d"' az acr update --name basicregistry --set tags.c=d
says "create Premium" '"name": "Premium"' az acr create --name "$REG" --resource-group "$GROUP" --sku Premium --location eastus
scope=$(az acr show --name "$REG" --query id -o tsv)
equals "both are listed in the group" "basicregistry $REG" "$(az acr list --resource-group "$GROUP" --query '[].name' -o tsv | sort | xargs)"
equals "and as resources" "basicregistry $REG" "$(az resource list --resource-group "$GROUP" --query '[].name' -o tsv | sort | xargs)"
says "az resource show" "$REG.azurecr.io" az resource show --ids "$scope"
says "by name and type" "$REG.azurecr.io" az resource show --name "$REG" --resource-group "$GROUP" --resource-type Microsoft.ContainerRegistry/registries
says "az acr show by the login server" "$REG" az acr show --name "$REG.azurecr.io"
for sku in Standard Basic Premium; do says "to the tier $sku" "\"name\": \"$sku\"" az acr update --name "$REG" --sku $sku; done
says "--allow-trusted-services" '"networkRuleBypassOptions": "None"' az acr update --name "$REG" --allow-trusted-services false
says "--public-network-enabled false" '"publicNetworkAccess": "Disabled"' az acr update --name "$REG" --public-network-enabled false
eventually "closes it" 2 not az acr login --name "$REG" --expose-token
# az has set the default action to Deny with it, and leaves it there.
says "and true" '"publicNetworkAccess": "Enabled"' az acr update --name "$REG" --public-network-enabled true --default-action Allow
eventually "opens it" 2 az acr login --name "$REG"
says "--allow-exports" '"status": "disabled"' az acr update --name "$REG" --allow-exports false --public-network-enabled false --query policies.exportPolicy
check "and back" az acr update --name "$REG" --allow-exports true --public-network-enabled true --default-action Allow
push "$LOGIN_SERVER/app:v1" >/dev/null 2>&1 || fail "something to read"

# --- anonymous pull
docker logout "$LOGIN_SERVER" >/dev/null
refuses "nobody pulls without signing in" "unauthorized|denied|authentication required" pull "$LOGIN_SERVER/app:v1"
says "anonymous pull" '"anonymousPullEnabled": true' az acr update --name "$REG" --anonymous-pull-enabled true
eventually "anybody pulls" 2 pull "$LOGIN_SERVER/app:v1"
refuses "and nobody pushes" "unauthorized|denied|authentication required" push "$LOGIN_SERVER/app:v2"
check "anonymous pull off" az acr update --name "$REG" --anonymous-pull-enabled false
eventually "nobody pulls" 2 not pull "$LOGIN_SERVER/app:v1"

# --- policies
says "config retention update" '"days": 30' az acr config retention update --registry "$REG" --status enabled --days 30 --type UntaggedManifests
says "config retention show" '"status": "enabled"' az acr config retention show --registry "$REG"
refuses "of no number of days that there is" "365|days|range" az acr config retention update --registry "$REG" --status enabled --days 400 --type UntaggedManifests
says "config soft-delete update" '"retentionDays": 9' az acr config soft-delete update --registry "$REG" --days 9 --status disabled --yes
says "config soft-delete show" '"retentionDays": 9' az acr config soft-delete show --registry "$REG"
says "config content-trust show" '"disabled"' az acr config content-trust show --registry "$REG"
says "config content-trust update" '"disabled"' az acr config content-trust update --registry "$REG" --status disabled --yes
says "config authentication-as-arm show" '"status": "enabled"' az acr config authentication-as-arm show --registry "$REG"
says "config authentication-as-arm update" '"status": "disabled"' az acr config authentication-as-arm update --registry "$REG" --status disabled
arm=$(az account get-access-token --query accessToken -o tsv)
exchange() { curl -s --cacert "$CA" -o /dev/null -w '%{http_code}' -d grant_type=access_token -d "service=$LOGIN_SERVER" -d "access_token=$1" "https://$LOGIN_SERVER/oauth2/exchange"; }
refused() { [ "$(exchange "$arm")" = 401 ]; }
accepted() { [ "$(exchange "$arm")" = 200 ]; }
eventually "a token for the control plane is then refused" 2 refused
check "and one for registries is not" az acr login --name "$REG"
az acr config authentication-as-arm update --registry "$REG" --status enabled >/dev/null
eventually "until it is allowed again" 2 accepted

# --- usage and endpoints
says "show-usage" '"name": "Size"' az acr show-usage --name "$REG"
size=$(az acr show-usage --name "$REG" --query "value[?name=='Size'].currentValue | [0]" -o tsv)
check "counts the bytes" test "$size" -gt 0
equals "names all limits" "Geo-replications IPRules PrivateEndpointConnections ScopeMaps Size Tokens VNetRules Webhooks" \
    "$(az acr show-usage --name "$REG" --query 'value[].name' -o tsv | sort | xargs)"
says "as a table" "Size" az acr show-usage --name "$REG" -o table
says "show-endpoints" "$REG.azurecr.io" az acr show-endpoints --name "$REG"
says "a data endpoint" '"dataEndpointEnabled": true' az acr update --name "$REG" --data-endpoint-enabled true
says "has a name" "$REG.eastus.data.azurecr.io" az acr show-endpoints --name "$REG"
az acr login --name "$REG" >/dev/null 2>&1
eventually "docker pulls by way of it" 3 pull "$LOGIN_SERVER/app:v1"
token=$(az acr login --name "$REG" --expose-token --query accessToken -o tsv 2>/dev/null)
access=$(curl -s --cacert "$CA" -d grant_type=refresh_token -d "service=$LOGIN_SERVER" -d scope=repository:app:pull --data-urlencode "refresh_token=$token" "https://$LOGIN_SERVER/oauth2/token" | json 'd["access_token"]')
layer=$(curl -s --cacert "$CA" -H "Authorization: Bearer $access" -H 'Accept: application/vnd.docker.distribution.manifest.v2+json' "https://$LOGIN_SERVER/v2/app/manifests/v1" | json 'd["layers"][0]["digest"]')
says "to which blobs are redirected" "^307 https://$REG.eastus.data.azurecr.io/" curl -s --cacert "$CA" -o /dev/null -w '%{http_code} %{redirect_url}' -H "Authorization: Bearer $access" "https://$LOGIN_SERVER/v2/app/blobs/$layer"
check "and off again" az acr update --name "$REG" --data-endpoint-enabled false

# --- network rules
says "network-rule add" '203.0.113.0/24' az acr network-rule add --name "$REG" --ip-address 203.0.113.0/24
says "of IPv6" '2001:db8::/32' az acr network-rule add --name "$REG" --ip-address 2001:db8::/32
refuses "what is no address" "invalid|Invalid|not.*valid|IP" az acr network-rule add --name "$REG" --ip-address 300.1.2.3
says "network-rule list" '203.0.113.0/24' az acr network-rule list --name "$REG"
check "nothing is closed by default" az acr repository list --name "$REG"
says "--default-action Deny" '"defaultAction": "Deny"' az acr update --name "$REG" --default-action Deny
eventually "closes it for us" 2 not az acr repository list --name "$REG"
refuses "az says who may not" "not allowed|access|firewall|403|network" az acr repository list --name "$REG"
refuses "docker too" "not allowed|denied|403|forbidden" pull "$LOGIN_SERVER/app:v1"
check "the control plane is open" az acr show --name "$REG"
says "allow us" '127.0.0.0/8' az acr network-rule add --name "$REG" --ip-address 127.0.0.0/8
eventually "opens it" 2 az acr repository list --name "$REG"
check "network-rule remove" az acr network-rule remove --name "$REG" --ip-address 127.0.0.0/8
eventually "closes it" 2 not az acr repository list --name "$REG"
check "--default-action Allow" az acr update --name "$REG" --default-action Allow
eventually "opens it to all" 2 az acr repository list --name "$REG"

# --- identities of a registry, and what there is none of
az identity create --name used --resource-group "$GROUP" >/dev/null
identity=$(az identity show --name used --resource-group "$GROUP" --query id -o tsv)
check "identity assign" az acr identity assign --name "$REG" --identities "$identity" '[system]'
says "identity show" 'SystemAssigned' az acr identity show --name "$REG"
check "identity remove" az acr identity remove --name "$REG" --identities "$identity"
equals "encryption is the server's" "" "$(az acr encryption show --name "$REG" --query keyVaultProperties -o tsv 2>/dev/null)"
for list in 'replication list --registry' 'webhook list --registry' 'credential-set list --registry' \
    'connected-registry list --registry' 'private-endpoint-connection list --registry-name'; do
    # shellcheck disable=SC2086
    out=$(az acr $list "$REG" -o json 2>&1 | tr -d ' \n') || fail "$list" "$out"
    case $list in
    replication*) says "$list" '^\[' printf '%s' "$out" ;;
    *) equals "$list" "[]" "$out" ;;
    esac
done
says "cache create" '"targetRepository": "mirror/app"' az acr cache create --registry "$REG" --name mirror --source-repo quay.io/acme/app --target-repo mirror/app
says "cache list, with what every registry has" 'docker-hub' az acr cache list --registry "$REG" --query '[].name' -o tsv
says "cache show" 'quay.io/acme/app' az acr cache show --registry "$REG" --name mirror
check "cache delete" az acr cache delete --registry "$REG" --name mirror --yes
refuses "is gone" "not found|ResourceNotFound" az acr cache show --registry "$REG" --name mirror
says "private-link-resource list" 'registry' az acr private-link-resource list --name "$REG"

# --- locks
says "a lock on the registry" '"level": "CanNotDelete"' az lock create --name keep --lock-type CanNotDelete --resource "$REG" --resource-group "$GROUP" \
    --resource-type Microsoft.ContainerRegistry/registries --notes "not this one"
refuses "keeps it from being deleted" "ScopeLocked" az acr delete --name "$REG" --yes
refuses "and its group" "ScopeLocked|locked" az group delete --name "$GROUP" --yes
check "not from being changed" az acr update --name "$REG" --admin-enabled true
says "lock list" '^keep +CanNotDelete|keep' az lock list --resource "$REG" --resource-group "$GROUP" --resource-type Microsoft.ContainerRegistry/registries -o table
says "lock show" '"notes": "not this one"' az lock show --name keep --resource "$REG" --resource-group "$GROUP" --resource-type Microsoft.ContainerRegistry/registries
says "of a group" '"level": "ReadOnly"' az lock create --name frozen --lock-type ReadOnly --resource-group "$GROUP"
refuses "nothing in it is changed" "ScopeLocked" az acr update --name basicregistry --admin-enabled true
refuses "nor made" "ScopeLocked" az acr create --name onemore --resource-group "$GROUP" --sku Basic
check "it is still read" az acr show --name basicregistry
equals "lock list of the group" "frozen keep" "$(az lock list --resource-group "$GROUP" --query '[].name' -o tsv | sort | xargs)"
check "az group lock list" az group lock list --resource-group "$GROUP"
check "lock update" az lock update --name frozen --resource-group "$GROUP" --lock-type CanNotDelete
check "then it is changed" az acr update --name basicregistry --admin-enabled true
check "lock delete" az lock delete --name frozen --resource-group "$GROUP"
check "of the subscription" az lock create --name all --lock-type CanNotDelete
refuses "goes for all in it" "ScopeLocked" az acr delete --name basicregistry --yes
check "by its id" az lock delete --ids "$(az lock list --query "[?name=='all'].id" -o tsv)"
check "of the registry" az lock delete --name keep --resource "$REG" --resource-group "$GROUP" --resource-type Microsoft.ContainerRegistry/registries
equals "none is left" "[]" "$(az lock list -o json | tr -d ' \n')"

# --- the activity log
says "activity-log of the group" 'Microsoft.ContainerRegistry/registries/write' az monitor activity-log list --resource-group "$GROUP" --query '[].operationName.value' -o tsv
says "of the registry" 'Microsoft.ContainerRegistry/registries/write' az monitor activity-log list --resource-id "$scope" --query '[].operationName.value' -o tsv
says "who did it" "$(field clientId)|$(az ad sp show --id "$(field clientId)" --query id -o tsv)" az monitor activity-log list --resource-group "$GROUP" --max-events 5 --query '[].caller' -o tsv
check "in the last hour" az monitor activity-log list --offset 1h -o table
says "what failed" "Failed|ScopeLocked" az monitor activity-log list --resource-group "$GROUP" --status Failed -o json
correlation=$(az monitor activity-log list --resource-group "$GROUP" --max-events 1 --query '[0].correlationId' -o tsv)
says "by correlation id" "$correlation" az monitor activity-log list --correlation-id "$correlation" --query '[].correlationId' -o tsv

# --- health
az acr login --name "$REG" >/dev/null 2>&1
out=$(AZURE_CORE_ONLY_SHOW_ERRORS=false az acr check-health --name "$REG" --ignore-errors --yes 2>&1) || fail "check-health" "$out"
says "check-health resolves the registry's name" "DNS lookup to $REG.azurecr.io at IP 127.0.0.1 : OK" printf '%s' "$out"
says "passes its challenge" "Challenge endpoint https://$REG.azurecr.io/v2/ : OK" printf '%s' "$out"
says "gets a refresh token" "Fetch refresh token for registry '$REG.azurecr.io' : OK" printf '%s' "$out"
says "and an access token" "Fetch access token for registry '$REG.azurecr.io' : OK" printf '%s' "$out"
out=$(AZURE_CORE_ONLY_SHOW_ERRORS=false az acr check-health --name "$REG" --repository app --ignore-errors --yes 2>&1) || fail "check-health --repository" "$out"
says "check-health of a repository" "Fetch access token for repository 'app' .* : OK" printf '%s' "$out"
if grep -Eq "missing|not have|lacks" <<<"$out"; then fail "finds all permissions" "$out"; else ok "finds all permissions"; fi

# --- errors as az knows them
refuses "a registry that is not there" "could not be found|not found" az acr show --name nosuchregistry
az acr show --name nosuchregistry --resource-group "$GROUP" >/dev/null 2>&1 && code=0 || code=$?
equals "exits with 3" 3 "$code"
refuses "a name with a dash" "alphanumeric|lowercase|dash|invalid" az acr create --name a-registry --resource-group "$GROUP" --sku Basic
refuses "a group that is not there" "ResourceGroupNotFound" az acr create --name another --resource-group nosuchgroup --sku Basic --location eastus
check "a deployment's what-if or validation is not needed for az rest" az rest --method get --url "$SERVER$scope?api-version=2025-11-01"
says "az rest PATCH" '"adminUserEnabled": false' az rest --method patch --url "$SERVER$scope?api-version=2025-11-01" --body '{"properties":{"adminUserEnabled":false}}'
check "az group delete" az group delete --name "$GROUP" --yes
equals "and what was in it" "" "$(az acr list --query '[].name' -o tsv)"
