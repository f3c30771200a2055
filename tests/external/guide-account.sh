# The guide's chapters on creating a registry, signing in to it, securing it, what to do when
# something is wrong and cleaning up, line by line as the guide writes them (names, port and
# all): once with the real az, once with our CLI under its name.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/external/az-lib.sh
. "$(dirname "$0")/az-lib.sh"
# shellcheck source=tests/external/world-lib.sh
. "$(dirname "$0")/world-lib.sh"
world_docker

# chapters LABEL: through the function az.
chapters() {
    local who=$1
    local REGISTRY_NAME=$REG RESOURCE_GROUP="rg-containers" LOCATION="eastus"

    # --- Creating an ACR
    check "$who: create the resource group" az group create \
        --name $RESOURCE_GROUP \
        --location $LOCATION
    says "$who: create a registry, Basic" '"name": "Basic"' az acr create \
        --resource-group $RESOURCE_GROUP \
        --name "$REGISTRY_NAME" \
        --sku Basic
    says "$who: the same again as Standard" '"name": "Standard"' az acr create \
        --resource-group $RESOURCE_GROUP \
        --name "$REGISTRY_NAME" \
        --sku Standard
    says "$who: and with the admin user" '"adminUserEnabled": true' az acr create \
        --resource-group $RESOURCE_GROUP \
        --name "$REGISTRY_NAME" \
        --sku Basic \
        --admin-enabled true
    says "$who: show it" '"provisioningState": "Succeeded"' az acr show \
        --name "$REGISTRY_NAME" \
        --resource-group $RESOURCE_GROUP
    equals "$who: its location is its group's" $LOCATION "$(az acr show --name "$REGISTRY_NAME" --query location --output tsv)"
    equals "$who: its login server" "$REGISTRY_NAME.azurecr.io" "$(az acr show \
        --name "$REGISTRY_NAME" \
        --query loginServer \
        --output tsv)"
    says "$who: list all as a table" "^$REGISTRY_NAME +$RESOURCE_GROUP +$LOCATION +Basic +$REGISTRY_NAME.azurecr.io +.* +True" az acr list --output table

    # --- Authentication, method 1: az
    says "$who: sign docker in" "Login Succeeded" az acr login --name "$REGISTRY_NAME"
    image "$WORLD/ctx" "of $who"
    check "$who: which may push" push "$REGISTRY_NAME.azurecr.io/flask-echo:latest"
    docker logout "${REGISTRY_NAME}.azurecr.io" >/dev/null
    refuses "$who: and signed out may not" "unauthorized|authentication required|denied" docker push "$REGISTRY_NAME.azurecr.io/flask-echo:latest"

    # --- method 2: the admin account
    says "$who: enable the admin account" '"adminUserEnabled": true' az acr update \
        --name "$REGISTRY_NAME" \
        --admin-enabled true
    says "$who: get its credentials" '"username": "'"$REGISTRY_NAME"'"' az acr credential show \
        --name "$REGISTRY_NAME"
    local password
    for n in 0 1; do
        password=$(az acr credential show --name "$REGISTRY_NAME" --query "passwords[$n].value" -o tsv)
        check "$who: docker login with password $n of the admin account" docker login "${REGISTRY_NAME}.azurecr.io" \
            --username "$REGISTRY_NAME" \
            --password "$password"
    done
    docker rmi "$REGISTRY_NAME.azurecr.io/flask-echo:latest" >/dev/null
    check "$who: which may pull" docker pull "$REGISTRY_NAME.azurecr.io/flask-echo:latest"
    docker logout "${REGISTRY_NAME}.azurecr.io" >/dev/null

    # --- method 3: a service principal
    local SP_NAME="acr-service-principal" ACR_REGISTRY_ID SP_PASSWD SP_APP_ID
    ACR_REGISTRY_ID=$(az acr show --name "$REGISTRY_NAME" --query id --output tsv)
    SP_PASSWD=$(az ad sp create-for-rbac \
        --name $SP_NAME \
        --scopes "$ACR_REGISTRY_ID" \
        --role acrpull \
        --query password \
        --output tsv 2>"$WORLD/sp.err") || fail "$who: create the service principal" "$(cat "$WORLD/sp.err")"
    check "$who: creating a service principal gives a password" test ${#SP_PASSWD} -ge 20
    SP_APP_ID=$(az ad sp list \
        --display-name $SP_NAME \
        --query '[].appId' \
        --output tsv)
    says "$who: and it is listed, once" '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' printf '%s' "$SP_APP_ID"
    eventually "$who: docker login as the service principal" 10 docker login "${REGISTRY_NAME}.azurecr.io" \
        --username "$SP_APP_ID" \
        --password "$SP_PASSWD"
    docker rmi "$REGISTRY_NAME.azurecr.io/flask-echo:latest" >/dev/null
    check "$who: it may pull" docker pull "$REGISTRY_NAME.azurecr.io/flask-echo:latest"
    refuses "$who: and not push" "denied|unauthorized|authentication required" docker push "$REGISTRY_NAME.azurecr.io/flask-echo:latest"
    docker logout "${REGISTRY_NAME}.azurecr.io" >/dev/null

    # --- Image scanning and security; best practices: security
    says "$who: turn the plan for registries on" '"pricingTier": "Standard"' az security pricing create \
        --name ContainerRegistry \
        --tier Standard
    says "$who: it is on" '"pricingTier": "Standard"' az security pricing show --name ContainerRegistry
    says "$who: what there is to say about the registry" "registries/$REGISTRY_NAME/" az security assessment list \
        --query "[?contains(id, 'Microsoft.ContainerRegistry')].id" -o tsv
    equals "$who: no private endpoint is connected" "[]" "$(az acr private-endpoint-connection list --registry-name "$REGISTRY_NAME" -o json | tr -d ' \n')"
    check "$who: turn the admin account off, as is best" az acr update --name "$REGISTRY_NAME" --admin-enabled false
    refuses "$who: its password no longer opens docker" "unauthorized|denied|authentication required" docker login "${REGISTRY_NAME}.azurecr.io" \
        --username "$REGISTRY_NAME" \
        --password "$password"
    refuses "$who: nor is it shown" "admin.*(disabled|not enabled|enable)" az acr credential show --name "$REGISTRY_NAME"
    check "$who: and on again" az acr update --name "$REGISTRY_NAME" --admin-enabled true

    # --- Troubleshooting: a build failed
    printf 'FROM scratch\nCOPY message /message\n' >"$WORLD/ctx/Dockerfile"
    check "$who: a build to look at" az acr build --registry "$REGISTRY_NAME" --image flask-echo:v1.0.0 "$WORLD/ctx"
    local run
    run=$(az acr task list-runs --registry "$REGISTRY_NAME" --query '[0].runId' -o tsv)
    says "$who: its log in detail" "COPY message" az acr task logs \
        --registry "$REGISTRY_NAME" \
        --run-id "$run"
    check "$who: the build locally" docker build -t test "$WORLD/ctx"
    # sign-in
    check "$who: sign in again" az acr login --name "$REGISTRY_NAME"
    says "$who: look at the credentials" '"name": "password2"' az acr credential show --name "$REGISTRY_NAME"
    check "$who: sign out" docker logout "${REGISTRY_NAME}.azurecr.io"
    check "$who: and in once more" az acr login --name "$REGISTRY_NAME"
    # a pull failed
    equals "$who: the image is there" "latest v1.0.0" "$(az acr repository show-tags \
        --name "$REGISTRY_NAME" \
        --repository flask-echo -o tsv | sort | xargs)"
    equals "$who: the id of the registry" "$ACR_REGISTRY_ID" "$(az acr show \
        --name "$REGISTRY_NAME" \
        --query id \
        --output tsv)"
    says "$who: who has a role on it" '"roleDefinitionName": "AcrPull"' az role assignment list \
        --scope "$ACR_REGISTRY_ID"
    says "$who: by name" '"principalName": "'"$SP_APP_ID"'"' az role assignment list \
        --scope "$ACR_REGISTRY_ID"

    # --- Cleanup
    check "$who: delete a repository" az acr repository delete \
        --name "$REGISTRY_NAME" \
        --repository flask-echo \
        --yes
    check "$who: delete the registry" az acr delete \
        --name "$REGISTRY_NAME" \
        --resource-group $RESOURCE_GROUP \
        --yes
    refuses "$who: it is gone" "not found|could not be found" az acr show --name "$REGISTRY_NAME"
    check "$who: delete the group and do not wait" az group delete \
        --name $RESOURCE_GROUP \
        --yes \
        --no-wait
    eventually "$who: which goes by itself" 60 not az group show --name $RESOURCE_GROUP
    check "$who: the service principal goes too" az ad sp delete --id "$SP_APP_ID"
    equals "$who: and is listed no more" "" "$(az ad sp list --display-name $SP_NAME --query '[].appId' --output tsv)"
}

real_az
chapters az
az() { "$PORTOLAN" "$@"; }
"$PORTOLAN" login --bootstrap "$BOOTSTRAP" -o none
chapters portolan
