# Roles with the real az: definitions, assignments at every scope, conditions, and that those who
# have them may do what they say and nothing else.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck disable=SC2034
world_names='abacregistry.azurecr.io'
# shellcheck source=tests/external/az-lib.sh
. "$(dirname "$0")/az-lib.sh"
# shellcheck source=tests/external/world-lib.sh
. "$(dirname "$0")/world-lib.sh"
world_docker
real_az
tenant=$(field tenantId) subscription=$(field subscriptionId)
az group create --name "$GROUP" --location eastus >/dev/null
az acr create --name "$REG" --resource-group "$GROUP" --sku Premium >/dev/null
scope=$(az acr show --name "$REG" --query id -o tsv)
az acr login --name "$REG" >/dev/null 2>&1
push "$LOGIN_SERVER/app:v1" >/dev/null 2>&1 || fail "something to read"
push "$LOGIN_SERVER/team/web:v1" >/dev/null 2>&1 || fail "something to read"

# principal NAME: a service principal; $NAME_id, $NAME_secret, and az_as NAME.
principal() {
    local both
    both=$(az ad sp create-for-rbac --name "$1" --query '[appId,password]' -o tsv 2>/dev/null | xargs) || fail "a service principal $1" "$both"
    declare -g "${1}_id=${both%% *}" "${1}_secret=${both##* }"
    az_as "$1" login --service-principal -u "${both%% *}" -p "${both##* }" --tenant "$tenant" --allow-no-subscriptions >/dev/null || fail "$1 signs in"
}
# again NAME: signs in anew, to see the subscription that a role opened.
again() {
    local id=${1}_id secret=${1}_secret
    az_as "$1" login --service-principal -u "${!id}" -p "${!secret}" --tenant "$tenant" --allow-no-subscriptions >/dev/null
}

# --- definitions
for pair in AcrPull:7f951dda-4ed3-4680-a7ca-43fe172d538d AcrPush:8311e382-0749-4cb8-b61a-304f252e45ec \
    AcrDelete:c2f4ef07-c644-48eb-af81-4b1b4947fb11 AcrImageSigner:6cef56e8-d556-48e5-a04f-b8e64114680f \
    AcrQuarantineReader:cdda3590-29a3-44f6-95f2-9f980659eb04 AcrQuarantineWriter:c8d4ff99-41c3-41a8-9f60-21dfdad59608 \
    Owner:8e3af657-a8ff-443c-a75c-2fe8c4bcb635 Contributor:b24988ac-6180-42a0-ab88-20f7382dd24c Reader:acdd72a7-3385-48ef-bd42-f606fba81ae7 \
    'User Access Administrator:18d7d88d-d35e-4fb5-a5c3-7773c20a72d9' \
    'Container Registry Repository Reader:b93aa761-3e63-49ed-ac28-beffa264f7ac' \
    'Container Registry Repository Writer:2a1e307c-b015-4ebd-883e-5b7698a07328' \
    'Container Registry Repository Contributor:2efddaa5-3f1f-4df3-97df-af3f13818f4c' \
    'Container Registry Repository Catalog Lister:bfdb9389-c9a5-478a-bb2f-ba9ca092c3c7'; do
    equals "the role ${pair%:*}" "${pair##*:}" "$(az role definition list --name "${pair%:*}" --query '[].name' -o tsv)"
done
says "as a table" "AcrPush" az role definition list -o table
says "of a scope" "AcrPush" az role definition list --scope "$scope" --query '[].roleName' -o tsv
cat >"$WORLD/role.json" <<JSON
{"Name": "Puller who deletes", "Description": "reads and deletes images", "IsCustom": true,
 "Actions": ["Microsoft.ContainerRegistry/registries/read", "Microsoft.ContainerRegistry/registries/pull/read",
             "Microsoft.ContainerRegistry/registries/artifacts/delete"],
 "NotActions": [], "DataActions": [], "NotDataActions": [],
 "AssignableScopes": ["/subscriptions/$subscription"]}
JSON
says "a role of our own" '"roleName": "Puller who deletes"' az role definition create --role-definition "@$WORLD/role.json"
equals "is a custom one" "Puller who deletes" "$(az role definition list --custom-role-only --query '[].roleName' -o tsv)"
refuses "the same name again" "RoleDefinitionWithSameNameExists|already exists|same name" az role definition create --role-definition "@$WORLD/role.json"
refuses "a built-in role is not changed" "built-in|BuiltIn|not allowed|cannot" az role definition delete --name AcrPull --scope "/subscriptions/$subscription"

# --- assignments
principal puller
principal pusher
principal custom
refuses "without a role no token" "unauthorized|denied|authentication required" docker_as "$puller_id" "$puller_secret"
says "assign by application id" '"principalType": "ServicePrincipal"' az role assignment create --assignee "$puller_id" --role acrpull --scope "$scope"
check "the same again is no error" az role assignment create --assignee "$puller_id" --role acrpull --scope "$scope"
equals "nor another assignment" 1 "$(az role assignment list --assignee "$puller_id" --all --query 'length(@)' -o tsv)"
pusher_oid=$(az ad sp show --id "$pusher_id" --query id -o tsv)
check "assign by object id, at the group" az role assignment create --assignee-object-id "$pusher_oid" --assignee-principal-type ServicePrincipal \
    --role AcrPush --scope "${scope%/providers/*}"
check "assign our own role, at the subscription" az role assignment create --assignee "$custom_id" --role "Puller who deletes" --scope "/subscriptions/$subscription"
refuses "nobody" "does not exist|not found|Cannot find" az role assignment create --assignee 00000000-0000-0000-0000-00000000dead --role acrpull --scope "$scope"
refuses "no such role" "doesn't exist|does not exist|not found" az role assignment create --assignee "$puller_id" --role nosuchrole --scope "$scope"

eventually "AcrPull opens docker" 2 docker_as "$puller_id" "$puller_secret"
check "pulls" pull "$LOGIN_SERVER/app:v1"
refuses "does not push" "denied|unauthorized|authentication required" push "$LOGIN_SERVER/app:v2"
check "sees the registry's images" az_as puller acr repository show-tags --name "$LOGIN_SERVER" --repository app
refuses "deletes none" "denied|unauthorized|authoriz|authenticat|not have" az_as puller acr repository delete --name "$LOGIN_SERVER" --image app:v1 --yes
again puller
refuses "and administers nothing" "AuthorizationFailed|not found|could not be found" az_as puller acr update --name "$REG" --resource-group "$GROUP" --admin-enabled true --subscription "$subscription"
check "AcrPush at the group opens docker" docker_as "$pusher_id" "$pusher_secret"
check "pushes" push "$LOGIN_SERVER/app:v2"
refuses "deletes none" "denied|unauthorized|authoriz|authenticat|not have" az_as pusher acr repository delete --name "$LOGIN_SERVER" --image app:v2 --yes
check "the custom role" docker_as "$custom_id" "$custom_secret"
refuses "does not push" "denied|unauthorized|authentication required" push "$LOGIN_SERVER/app:v3"
check "deletes" az_as custom acr repository delete --name "$LOGIN_SERVER" --image app:v2 --yes

# --- lists
says "at the scope" "AcrPull" az role assignment list --scope "$scope" --query '[].roleDefinitionName' -o tsv
equals "of the scope alone" AcrPull "$(az role assignment list --scope "$scope" --query '[].roleDefinitionName' -o tsv | sort | xargs)"
says "with what it inherits" "AcrPush" az role assignment list --scope "$scope" --include-inherited --query '[].roleDefinitionName' -o tsv
says "everywhere" "Puller who deletes" az role assignment list --all --query '[].roleDefinitionName' -o tsv
equals "of a group" AcrPush "$(az role assignment list --resource-group "$GROUP" --query '[].roleDefinitionName' -o tsv)"
equals "of somebody" AcrPull "$(az role assignment list --assignee "$puller_id" --all --query '[].roleDefinitionName' -o tsv)"
equals "with a role" AcrPull "$(az role assignment list --scope "$scope" --role acrpull --query '[].roleDefinitionName' -o tsv)"
says "as a table" "AcrPull" az role assignment list --scope "$scope" -o table

# --- what changes takes effect
sed -i 's/"Microsoft.ContainerRegistry\/registries\/artifacts\/delete"/"Microsoft.ContainerRegistry\/registries\/push\/write"/' "$WORLD/role.json"
check "change our own role" az role definition update --role-definition "@$WORLD/role.json"
eventually "who has it may push now" 2 push "$LOGIN_SERVER/app:v3"
refuses "and delete no more" "denied|unauthorized|authoriz|authenticat|not have" az_as custom acr repository delete --name "$LOGIN_SERVER" --image app:v3 --yes
refuses "a role that somebody has is not deleted" "RoleDefinitionHasAssignments|assign" az role definition delete --name "Puller who deletes" --custom-role-only
check "delete the assignment" az role assignment delete --assignee "$custom_id" --role "Puller who deletes" --scope "/subscriptions/$subscription"
eventually "which is effective" 2 not pull "$LOGIN_SERVER/app:v1"
check "delete our own role" az role definition delete --name "Puller who deletes"
check "delete an assignment by its id" az role assignment delete --ids "$(az role assignment list --assignee "$puller_id" --all --query '[0].id' -o tsv)"
eventually "which is effective too" 2 not docker_as "$puller_id" "$puller_secret"

# --- who may assign
principal admin
check "a contributor" az role assignment create --assignee "$admin_id" --role Contributor --scope "/subscriptions/$subscription"
again admin
check "administers" az_as admin acr update --name "$REG" --admin-enabled true
puller_oid=$(az ad sp show --id "$puller_id" --query id -o tsv)
refuses "but assigns no role" "AuthorizationFailed" az_as admin role assignment create --assignee-object-id "$puller_oid" --assignee-principal-type ServicePrincipal --role AcrPull --scope "$scope"
check "a user access administrator of a registry" az role assignment create --assignee "$admin_id" --role "User Access Administrator" --scope "$scope"
eventually "assigns roles there" 2 az_as admin role assignment create --assignee-object-id "$puller_oid" --assignee-principal-type ServicePrincipal --role AcrPull --scope "$scope"
refuses "and not above" "AuthorizationFailed" az_as admin role assignment create --assignee-object-id "$puller_oid" --assignee-principal-type ServicePrincipal --role AcrPull --scope "${scope%/providers/*}"

# --- the mode of repository permissions
says "a registry of repository permissions" '"roleAssignmentMode": "AbacRepositoryPermissions"' az acr create --name abacregistry --resource-group "$GROUP" --sku Standard --role-assignment-mode rbac-abac
abac=$(az acr show --name abacregistry --query id -o tsv)
LOGIN_SERVER=abacregistry.azurecr.io
me=$(field clientId)
refuses "its owner has no data in it" "denied|unauthorized|authoriz|authenticat|not have" az acr repository list --name abacregistry
check "until given some" az role assignment create --assignee "$me" --role "Container Registry Repository Contributor" --scope "$abac"
eventually "docker signs in" 3 az acr login --name abacregistry
eventually "and pushes" 3 push "$LOGIN_SERVER/team/web:v1"
check "elsewhere too" push "$LOGIN_SERVER/other:v1"
refuses "the catalogue is a right of its own" "denied|unauthorized|authoriz|authenticat|not have" az acr repository list --name abacregistry
check "which there is a role for" az role assignment create --assignee "$me" --role "Container Registry Repository Catalog Lister" --scope "$abac"
eventually "that opens it" 3 az acr repository list --name abacregistry
principal reader
check "a role from other times" az role assignment create --assignee "$reader_id" --role AcrPull --scope "$abac"
docker_as "$reader_id" "$reader_secret" >/dev/null 2>&1 || true
refuses "opens nothing here" "denied|unauthorized|authentication required" pull "$LOGIN_SERVER/team/web:v1"
check "a role with a condition" az role assignment create --assignee "$reader_id" --role "Container Registry Repository Reader" --scope "$abac" \
    --condition-version 2.0 --description "the team's" --condition "((!(ActionMatches{'Microsoft.ContainerRegistry/registries/repositories/content/read'}) AND !(ActionMatches{'Microsoft.ContainerRegistry/registries/repositories/metadata/read'})) OR (@Request[Microsoft.ContainerRegistry/registries/repositories:name] StringStartsWithIgnoreCase 'team/'))"
says "is shown with it" "StringStartsWithIgnoreCase 'team/'" az role assignment list --scope "$abac" --query '[].condition' -o tsv
eventually "docker signs in" 3 docker_as "$reader_id" "$reader_secret"
eventually "pulls what the condition says" 3 pull "$LOGIN_SERVER/team/web:v1"
refuses "and nothing else" "denied|unauthorized|not found|authentication required" pull "$LOGIN_SERVER/other:v1"
refuses "nor pushes" "denied|unauthorized|authentication required" push "$LOGIN_SERVER/team/web:v2"
refuses "a condition that says nothing" "condition|Condition|invalid" az role assignment create --assignee "$puller_id" --role "Container Registry Repository Reader" --scope "$abac" \
    --condition-version 2.0 --condition "this is no condition"
says "back to the other mode" '"roleAssignmentMode": "LegacyRegistryPermissions"' az acr update --name abacregistry --role-assignment-mode rbac
eventually "in which the old role counts" 3 pull "$LOGIN_SERVER/other:v1"
