# The unmodified Azure CLI against our server.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"

. "$(dirname "$0")/az-lib.sh"
az_environment "$WORK/azure"

check "az cloud register" az cloud register -n portolan --endpoint-resource-manager "$SERVER"
check "az cloud set" az cloud set -n portolan
refuses "a wrong secret is refused" "AADSTS7000215" \
    az login --service-principal -u "$(field clientId)" -p wrong --tenant "$(field tenantId)"
check "az login as service principal" \
    az login --service-principal -u "$(field clientId)" -p "$(field clientSecret)" --tenant "$(field tenantId)"

check "az group create" az group create --name rg-az --location eastus
says "az acr check-name finds a free name" '"nameAvailable": true' az acr check-name --name azreg
says "az acr create" '"provisioningState": "Succeeded"' az acr create --resource-group rg-az --name azreg --sku Basic
says "creating it again with another tier is an update" '"name": "Standard"' \
    az acr create --resource-group rg-az --name azreg --sku Standard
says "az acr check-name finds a taken name" '"nameAvailable": false' az acr check-name --name azreg
refuses "a bad name is refused" "between 5 and 50|alphanumeric|5-50|5 to 50" az acr create --resource-group rg-az --name abc --sku Basic
login=$(az acr show --name azreg --query loginServer --output tsv)
check "az acr show has a login server" test -n "$login"
says "az acr list -o table" "azreg" az acr list --output table
refuses "an unknown registry is said to be unknown" "could not be found|not found" az acr show --name nosuchreg
check "az acr update --admin-enabled" az acr update --name azreg --admin-enabled true
says "az acr credential show" '"username": "azreg"' az acr credential show --name azreg
before=$(az acr credential show --name azreg --query 'passwords[0].value' -o tsv)
after=$(az acr credential renew --name azreg --password-name password --query 'passwords[0].value' -o tsv)
check "az acr credential renew changes the password" test "$before" != "$after"

# From here on the registry whose login server needs no name resolution.
check "az acr login with docker" az acr login --name "$REG"

mkdir -p "$WORK/azctx"
cat >"$WORK/azctx/Dockerfile" <<'D'
FROM busybox
ARG GREETING=none
ENV GREETING=$GREETING
COPY message /message
RUN echo "greeting is $GREETING" && cat /message
CMD ["sh", "-c", "echo $GREETING; cat /message"]
D
echo "a message" >"$WORK/azctx/message"
out=$(az acr build --registry "$REG" --image azapp:v1 --image azapp:latest --build-arg GREETING=bonjour "$WORK/azctx" 2>&1) ||
    fail "az acr build" "$out"
ok "az acr build exits 0"
says "its log was streamed" "greeting is bonjour" printf '%s' "$out"
says "to its end" "Run ID: .* was successful" printf '%s' "$out"
printf 'FROM busybox\nRUN exit 3\n' >"$WORK/azctx/Broken"
refuses "a build that fails exits non-zero" "exit code: 3" az acr build --registry "$REG" --image azapp:broken --file "$WORK/azctx/Broken" "$WORK/azctx"
printf 'FROM busybox\nRNU echo typo\n' >"$WORK/azctx/Typo"
refuses "a typo is told with its line" "Typo:2|line 2" az acr build --registry "$REG" --image azapp:typo --file "$WORK/azctx/Typo" "$WORK/azctx"

says "az acr repository list" "azapp" az acr repository list --name "$REG" --output table
says "show-tags" "latest" az acr repository show-tags --name "$REG" --repository azapp --output table
says "show-tags --detail" '"digest": "sha256:' az acr repository show-tags --name "$REG" --repository azapp --detail
check "show-tags --orderby time_desc" az acr repository show-tags --name "$REG" --repository azapp --orderby time_desc --output table
says "show --image" '"name": "v1"' az acr repository show --name "$REG" --image azapp:v1
digest=$(az acr repository show --name "$REG" --image azapp:latest --query digest --output tsv)
says "show --image gives the digest" "^sha256:" printf %s "$digest"
says "show --repository" '"tagCount": 2' az acr repository show --name "$REG" --repository azapp
says "show-manifests" "$digest" az acr repository show-manifests --name "$REG" --repository azapp
says "task list-runs" "Succeeded" az acr task list-runs --registry "$REG" --output table
run=$(az acr task list-runs --registry "$REG" --run-status Succeeded --query '[0].runId' -o tsv)
says "task logs --run-id" "greeting is bonjour" az acr task logs --registry "$REG" --run-id "$run"
says "task logs of the newest run" "RNU|unknown instruction" az acr task logs --registry "$REG"

check "docker pulls what az built" docker pull "$LOGIN_SERVER/azapp:v1"
says "and runs it" "bonjour" docker run --rm --network none "$LOGIN_SERVER/azapp:v1"

check "untag" az acr repository untag --name "$REG" --image azapp:latest
equals "untag leaves the manifest and the other tag" "v1" "$(az acr repository show-tags --name "$REG" --repository azapp -o tsv)"
out=$(az acr build --registry "$REG" --image azapp:v2 --build-arg GREETING=hola "$WORK/azctx" 2>&1) || fail "second build" "$out"
out=$(az acr build --registry "$REG" --image azapp:v3 --build-arg GREETING=ciao "$WORK/azctx" 2>&1) || fail "third build" "$out"
check "delete by tag" az acr repository delete --name "$REG" --image azapp:v1 --yes
refuses "deleting a tag deletes its manifest" "not found|unknown|404" az acr repository show --name "$REG" --image "azapp@$digest"
v2=$(az acr repository show --name "$REG" --image azapp:v2 --query digest -o tsv)
check "delete by digest" az acr repository delete --name "$REG" --image "azapp@$v2" --yes
equals "only v3 is left" "v3" "$(az acr repository show-tags --name "$REG" --repository azapp -o tsv)"
check "delete by repository" az acr repository delete --name "$REG" --repository azapp --yes
equals "the repository is gone" "0" "$(az acr repository list --name "$REG" -o tsv | grep -c '^azapp$' || true)"

check "az acr delete" az acr delete --name azreg --resource-group rg-az --yes
check "az group delete" az group delete --name rg-az --yes
refuses "and it is gone" "not found|could not be found" az acr show --name azreg
exports=$(env -u AZURE_CONFIG_DIR -u REQUESTS_CA_BUNDLE PATH="$AZ_VENV/bin:$PATH" "$PORTOLAN" azure-cli setup --bootstrap "$BOOTSTRAP") ||
    fail "portolan azure-cli setup" "$exports"
ok "portolan azure-cli setup points a private az at the server"
says "which is then ready" "$REG" sh -c "eval \"\$1\"; exec \"\$2\" acr list --output table" - "$exports" "$AZ_VENV/bin/az"
