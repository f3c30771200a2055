# Repository tokens and scope maps with the real az: every command of `acr token` and `acr
# scope-map`, and what docker may then do.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/external/az-lib.sh
. "$(dirname "$0")/az-lib.sh"
# shellcheck source=tests/external/world-lib.sh
. "$(dirname "$0")/world-lib.sh"
world_docker
real_az
az group create --name "$GROUP" --location eastus >/dev/null
az acr create --name "$REG" --resource-group "$GROUP" --sku Premium >/dev/null
az acr login --name "$REG" >/dev/null 2>&1
for repo in team/app samples/one samples/two other; do
    push "$LOGIN_SERVER/$repo:v1" >/dev/null 2>&1 || fail "something to read: $repo"
done

# --- scope maps
says "create a scope map" '"repositories/team/app/content/write"' az acr scope-map create --name team-map --registry "$REG" \
    --repository team/app content/read content/write metadata/read --repository other content/read \
    --description "what the team may do"
says "show it" '"description": "what the team may do"' az acr scope-map show --name team-map --registry "$REG"
says "list them: the system's are there too" '_repositories_admin' az acr scope-map list --registry "$REG" -o tsv --query '[].name'
says "as a table" '^team-map ' az acr scope-map list --registry "$REG" -o table
says "add to it" 'repositories/samples/\*/content/read' az acr scope-map update --name team-map --registry "$REG" \
    --add-repository 'samples/*' content/read metadata/read
says "take from it" '"description": "less"' az acr scope-map update --name team-map --registry "$REG" \
    --remove-repository other content/read --description less
equals "and the rest stays" "repositories/samples/*/content/read repositories/samples/*/metadata/read repositories/team/app/content/read repositories/team/app/content/write repositories/team/app/metadata/read" \
    "$(az acr scope-map show --name team-map --registry "$REG" --query 'actions' -o tsv | sort | xargs -d '\n')"
refuses "an action that does not exist" "invalid|not supported|rule|action" az acr scope-map create --name bad-map --registry "$REG" --repository a content/burn
refuses "a repository that cannot be" "invalid|InvalidAction|not valid|repository" az acr scope-map create --name bad-map --registry "$REG" --repository 'A B' content/read
refuses "a wildcard in the middle" "invalid|wildcard|not valid" az acr scope-map create --name bad-map --registry "$REG" --repository 'a/*/b' content/read
refuses "one that is not there" "not found|could not be found" az acr scope-map show --name nosuch --registry "$REG"
refuses "the system's are not to be changed" "system|not allowed|cannot|reserved|invalid" az acr scope-map update --name _repositories_pull --registry "$REG" \
    --add-repository x content/write

# --- tokens
out=$(az acr token create --name ci-token --registry "$REG" --scope-map team-map -o json 2>&1) || fail "create a token" "$out"
ok "create a token"
says "shows its two passwords" '"name": "password2"' printf '%s' "$out"
one=$(python3 -c 'import json,sys; print(json.load(sys.stdin)["credentials"]["passwords"][0]["value"])' <<<"$out")
two=$(python3 -c 'import json,sys; print(json.load(sys.stdin)["credentials"]["passwords"][1]["value"])' <<<"$out")
check "which are two" test "$one" != "$two"
shown=$(az acr token show --name ci-token --registry "$REG")
case $shown in *"$one"* | *"$two"*) fail "and shows them once" "$shown" ;; *) ok "and shows them once" ;; esac
says "list tokens" '^ci-token +team-map .*Enabled' az acr token list --registry "$REG" -o table

check "docker login with the first password" docker_as ci-token "$one"
check "push where it may" push "$LOGIN_SERVER/team/app:v2"
check "pull there" pull "$LOGIN_SERVER/team/app:v1"
check "pull by a wildcard" pull "$LOGIN_SERVER/samples/two:v1"
refuses "no push by that" "denied|unauthorized|authentication required" push "$LOGIN_SERVER/samples/two:v2"
refuses "no pull of another repository" "denied|unauthorized|not found|authentication required" pull "$LOGIN_SERVER/other:v1"
check "docker login with the second password" docker_as ci-token "$two"
refuses "a wrong one is refused" "unauthorized|denied|authentication required" docker_as ci-token "${one}x"
refuses "nor does one token's open another" "unauthorized|denied|authentication required" docker_as nosuch "$one"

equals "az itself with a token: tags" "v1 v2" "$(az acr repository show-tags --name "$REG" --repository team/app -u ci-token -p "$one" -o tsv | xargs)"
refuses "but never the catalogue" "denied|unauthorized|authentication|not have|authorized" az acr repository list --name "$REG" -u ci-token -p "$one"
refuses "nor deleting" "denied|unauthorized|authentication|not have|authorized" az acr repository delete --name "$REG" --image team/app:v2 -u ci-token -p "$one" --yes
says "az acr login with it" "Login Succeeded" az acr login --name "$REG" -u ci-token -p "$one"
equals "Basic opens the API itself" 200 "$(curl -s -o /dev/null -w '%{http_code}' --cacert "$CA" -u "ci-token:$one" "https://$LOGIN_SERVER/v2/team/app/tags/list")"
equals "where it may" 401 "$(curl -s -o /dev/null -w '%{http_code}' --cacert "$CA" -u "ci-token:$one" "https://$LOGIN_SERVER/v2/other/tags/list" | sed s/403/401/)"

# --- what changes takes effect
az acr scope-map update --name team-map --registry "$REG" --add-repository other content/read metadata/read >/dev/null
docker_as ci-token "$one" >/dev/null 2>&1
eventually "a wider map is effective" 2 pull "$LOGIN_SERVER/other:v1"
az acr scope-map update --name team-map --registry "$REG" --remove-repository other content/read metadata/read >/dev/null
eventually "a narrower one too" 2 not pull "$LOGIN_SERVER/other:v1"

three=$(az acr token credential generate --name ci-token --registry "$REG" --password1 --query 'passwords[0].value' -o tsv)
check "generate the first password anew" docker_as ci-token "$three"
refuses "the old one is gone" "unauthorized|denied|authentication required" docker_as ci-token "$one"
check "the second stays" docker_as ci-token "$two"
says "delete the second" 'password1' az acr token credential delete --name ci-token --registry "$REG" --password2
refuses "which opens no more" "unauthorized|denied|authentication required" docker_as ci-token "$two"
says "generate one that expires" '"expiry": "20' az acr token credential generate --name ci-token --registry "$REG" --password2 --expiration-in-days 30
four=$(az acr token credential generate --name ci-token --registry "$REG" --password2 \
    --expiration "$(date -u -d '+8 seconds' +%Y-%m-%dT%H:%M:%SZ)" --query "passwords[?name=='password2'].value | [0]" -o tsv)
check "one that expires in a moment opens now" docker_as ci-token "$four"
eventually "and not after it" 20 not docker_as ci-token "$four"

check "disable the token" az acr token update --name ci-token --registry "$REG" --status disabled
eventually "it opens nothing" 2 not docker_as ci-token "$three"
check "enable it" az acr token update --name ci-token --registry "$REG" --status enabled
eventually "it opens again" 2 docker_as ci-token "$three"
check "give it another scope map" az acr token update --name ci-token --registry "$REG" --scope-map _repositories_pull
check "which lets it pull" pull "$LOGIN_SERVER/other:v1"
refuses "and not push" "denied|unauthorized|authentication required" push "$LOGIN_SERVER/team/app:v3"

# --- a token with a map of its own
out=$(az acr token create --name quick --registry "$REG" --repository 'samples/*' content/read content/write content/delete metadata/read metadata/write \
    --expiration-in-days 30 --query 'credentials.passwords[0].value' -o tsv 2>&1) || fail "a token with repositories" "$out"
ok "a token with repositories"
says "has a scope map of its own" 'repositories/samples/\*/content/delete' az acr scope-map show --name quick-scope-map --registry "$REG"
check "and works" docker_as quick "$out"
check "on repositories that were not there" push "$LOGIN_SERVER/samples/three:v1"
check "deleting too" az acr repository delete --name "$REG" --image samples/three:v1 -u quick -p "$out" --yes
says "one without passwords" '"status": "disabled"' az acr token create --name no-password --registry "$REG" --scope-map team-map --no-passwords true --status disabled
equals "has none" "" "$(az acr token show --name no-password --registry "$REG" --query 'credentials.passwords[].name' -o tsv)"

equals "the registry's usage counts them" 3 "$(az acr show-usage --name "$REG" --query "value[?name=='Tokens'].currentValue | [0]" -o tsv)"
for t in ci-token quick no-password; do check "delete the token $t" az acr token delete --name $t --registry "$REG" --yes; done
refuses "which then opens nothing" "unauthorized|denied|authentication required" docker_as ci-token "$three"
for m in team-map quick-scope-map; do check "delete the scope map $m" az acr scope-map delete --name $m --registry "$REG" --yes; done
equals "none is left but the system's" "" "$(az acr scope-map list --registry "$REG" --query "[?!starts_with(name, '_')].name" -o tsv)"
