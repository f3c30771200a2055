# Secrets are kept hashed, shown once and never logged: every kind of secret is made, used
# rightly and wrongly on a server that logs all it can, and then looked for, as it stands and
# in base64, in everything that this server wrote.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"

here=$WORK/secrets
mkdir -p "$here"
PORTOLAN_LOG_FILTER=trace "$PORTOLAN" serve --data "$here/data" --listen 127.0.0.1:0 >"$here/ready" 2>"$here/server.log" &
server=$!
trap 'kill -KILL $server 2>/dev/null || true' EXIT
for _ in $(seq 300); do
    grep -q '^portolan ready' "$here/ready" && break
    sleep 0.1
done
export PORTOLAN_CONFIG_DIR=$here/profile
p() { "$PORTOLAN" "$@"; }
field() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$here/data/bootstrap.json" "$1"; }
url=$(field server) tenant=$(field tenantId)
ca=$here/data/tls/ca.pem
ask() { curl -sS --cacert "$ca" "$@"; }

declare -A secrets
secrets[owner]=$(field clientSecret)
p login --bootstrap "$here/data/bootstrap.json" -o none
p group create -n rg -l local -o none
p acr create -n secretreg -g rg --sku Premium --admin-enabled true -o none
registry=$(p acr show -n secretreg --query loginServer -o tsv)

# --- one of each kind, as it is shown
secrets[admin]=$(p acr credential show -n secretreg --query 'passwords[0].value' -o tsv)
secrets[token]=$(p acr token create -r secretreg -n reader --repository a content/read \
    --query 'credentials.passwords[0].value' -o tsv 2>/dev/null)
rbac=$(p ad sp create-for-rbac -n robot --role AcrPull --scopes "$(p acr show -n secretreg --query id -o tsv)" 2>/dev/null)
app=$(python3 -c 'import json,sys; print(json.load(sys.stdin)["appId"])' <<<"$rbac")
secrets[principal]=$(python3 -c 'import json,sys; print(json.load(sys.stdin)["password"])' <<<"$rbac")
secrets[person]="Fjord-$(openssl rand -hex 8)-Harbour"
p ad user create --display-name Ann --user-principal-name ann@example.com --password "${secrets[person]}" -o none
for kind in owner admin token principal person; do
    [ -n "${secrets[$kind]}" ] || fail "there is a secret: $kind"
done
ok "one secret of each kind"

# --- each of them used as it should be
arm=$(p account get-access-token --query accessToken -o tsv)
secrets[directory-token]=$arm
answer=$(ask -d grant_type=access_token -d "service=$registry" --data-urlencode "access_token=$arm" "$url/oauth2/exchange")
secrets[refresh-token]=$(python3 -c 'import json,sys; print(json.load(sys.stdin)["refresh_token"])' <<<"$answer")
use() { # NAME SECRET
    ask -u "$1:$2" "$url/oauth2/token?service=$registry&scope=repository:a:pull"
}
access() { python3 -c 'import json,sys; print(json.load(sys.stdin)["access_token"])'; }
secrets[access-token]=$(use secretreg "${secrets[admin]}" | access)
check "the token signs in" access < <(use reader "${secrets[token]}")
check "the principal signs in" access < <(use "$app" "${secrets[principal]}")
signed_in=$(ask -d grant_type=password -d client_id=04b07795-8ddb-461a-bbee-02f9e1bf7b46 -d username=ann@example.com \
    --data-urlencode "password=${secrets[person]}" --data-urlencode "scope=$url/.default offline_access openid" \
    "$url/$tenant/oauth2/v2.0/token")
secrets[person-refresh]=$(python3 -c 'import json,sys; print(json.load(sys.stdin)["refresh_token"])' <<<"$signed_in")
ok "the person signs in"

# --- and wrongly: of another name, in the wrong place, in the wrong order
for kind in "${!secrets[@]}"; do
    s=${secrets[$kind]}
    ask -o /dev/null -u "nobody:$s" "$url/v2/"
    ask -o /dev/null -u "$s:nobody" "$url/v2/"
    ask -o /dev/null -H "Authorization: Bearer $s" "$url/v2/a/tags/list"
    ask -o /dev/null -H "Authorization: Bearer $s" "$url/subscriptions"
    ask -o /dev/null -H "Authorization: Basic $s" "$url/v2/"
    ask -o /dev/null -d grant_type=client_credentials -d "client_id=$app" --data-urlencode "client_secret=$s" \
        -d "scope=x/.default" "$url/$tenant/oauth2/v2.0/token"
    ask -o /dev/null -d grant_type=refresh_token -d "service=$registry" --data-urlencode "refresh_token=$s" "$url/oauth2/token"
    ask -o /dev/null -d grant_type=access_token -d "service=$registry" --data-urlencode "access_token=$s" "$url/oauth2/exchange"
    ask -o /dev/null -d grant_type=refresh_token -d client_id=04b07795-8ddb-461a-bbee-02f9e1bf7b46 \
        --data-urlencode "refresh_token=$s" "$url/$tenant/oauth2/v2.0/token"
done
p acr login -n secretreg --expose-token -o none 2>/dev/null
kill -TERM $server
wait $server || fail "the server ends in order"
trap - EXIT

# --- nowhere, in nothing that the server wrote
[ "$(wc -c <"$here/server.log")" -gt 10000 ] || fail "the log says much" "$(wc -c <"$here/server.log") bytes"
# What is found when it is there: a name that was logged, a text that was stored.
check "the search finds what is there" grep -rqF -- secretreg "$here/data" "$here/server.log"
for kind in $(printf '%s\n' "${!secrets[@]}" | sort); do
    s=${secrets[$kind]}
    # A token is a secret by its signature; the front of it is the same in all.
    [ ${#s} -lt 200 ] || s=${s: -80}
    found=$(grep -rlaF --exclude=bootstrap.json -e "$s" -e "$(printf %s "$s" | base64 -w0 | tr -d '=')" \
        "$here/data" "$here/server.log" || true)
    equals "nowhere: $kind" "" "$found"
done
