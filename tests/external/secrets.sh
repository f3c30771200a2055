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
# --- builds that are trusted with something: a secret as a file and as a variable, secret build
# arguments, a key; steps that use them as they should, print them, and fail with them
for kind in build-file build-variable build-argument build-base64; do
    secrets[$kind]="Quay-$(openssl rand -hex 12)-Lantern"
done
ssh-keygen -q -t ed25519 -N '' -C builder -f "$here/key"
secrets[build-key]=$(sed -n 3p "$here/key")
printf 'first line\n%s\n' "${secrets[build-file]}" >"$here/secret-file"
mkdir -p "$here/ctx"
cat >"$here/ctx/Dockerfile" <<'D'
FROM busybox
ARG KEY
ENV DERIVED=x-$KEY
RUN --mount=type=secret,id=file cat /run/secrets/file; cat /run/secrets/file >&2; wc -c < /run/secrets/file > /size; echo found in a layer > /marker
RUN --mount=type=secret,id=variable,env=TOKEN --mount=type=cache,target=/cache echo "$TOKEN"; i=0; \
    while [ $i -lt ${#TOKEN} ]; do i=$((i+1)); echo "$TOKEN" | cut -c $i | tr -d '\n'; sleep 0.01; done; echo
RUN --mount=type=secret,id=encoded base64 /run/secrets/encoded
RUN echo "$KEY $DERIVED"
RUN --mount=type=ssh test -S "$SSH_AUTH_SOCK"
RUN --mount=type=secret,id=variable,env=TOKEN sleep 7.7135
RUN --mount=type=secret,id=file sh -c "cat /run/secrets/file; exit 3"
D
p acr build -r secretreg -t busybox:latest "$BASES/busybox" >"$here/base.log" 2>&1 || fail "the base builds" "$(tail "$here/base.log")"
TOKEN=${secrets[build-variable]} CODE=${secrets[build-base64]} p acr build -r secretreg -t leaky:v1 \
    --secret "id=file,src=$here/secret-file" --secret id=variable,env=TOKEN --secret id=encoded,env=CODE \
    --secret-build-arg "KEY=${secrets[build-argument]}" --ssh "default=$here/key" "$here/ctx" >"$here/build.log" 2>&1 &
building=$!
eventually "a step with a secret in its environment runs" 120 pgrep -f "^sleep 7.7135"
step=$(pgrep -f "^sleep 7.7135" | head -n 1)
check "which has it" grep -qaF "${secrets[build-variable]}" "/proc/$step/environ"
lines=$(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' ' ')
for kind in build-file build-variable build-base64; do
    if grep -qF -- "${secrets[$kind]}" <<<"$lines"; then fail "no command line has it: $kind"; else ok "no command line has it: $kind"; fi
done
# Who has it in its environment: the client, who was given it there, and the step.
holders=0
for pid in $(pgrep -x portolan); do
    [ "$pid" = "$building" ] || [ "$(awk '{print $4}' "/proc/$pid/stat")" = "$building" ] && continue
    grep -qaF "${secrets[build-variable]}" "/proc/$pid/environ" 2>/dev/null && [ "$(tr '\0' ' ' <"/proc/$pid/cmdline" | grep -c 'acr build')" = 0 ] && holders=$((holders + 1))
done
equals "no process of the server has it in its environment" 0 $holders
if wait $building; then fail "the build fails with its last step"; else ok "the build fails with its last step"; fi
check "the log shows that something was hidden" grep -q '\*\*\*' "$here/build.log"
cp "$here/build.log" "$here/data/client-build.log"

kill -TERM $server
wait $server || fail "the server ends in order"
trap - EXIT

# --- nowhere, in nothing that the server wrote
[ "$(wc -c <"$here/server.log")" -gt 10000 ] || fail "the log says much" "$(wc -c <"$here/server.log") bytes"
# What is found when it is there: a name that was logged, a text that was stored.
check "the search finds what is there" grep -rqF -- secretreg "$here/data" "$here/server.log"
layers_with() { # the compressed files that hold a text
    find "$here/data" -type f -size +0 -exec sh -c 'gzip -t "$1" 2>/dev/null && gzip -dc "$1" | grep -qaF -e "$2" && echo "$1"' _ {} "$1" \;
}
check "in layers, too" test -n "$(layers_with "found in a layer")"
for kind in $(printf '%s\n' "${!secrets[@]}" | sort); do
    s=${secrets[$kind]}
    # A token is a secret by its signature; the front of it is the same in all.
    [ ${#s} -lt 200 ] || s=${s: -80}
    # In layers, which are compressed, too.
    equals "in no layer: $kind" "" "$(layers_with "$s")"
    found=$(grep -rlaF --exclude=bootstrap.json -e "$s" -e "$(printf %s "$s" | base64 -w0 | tr -d '=')" \
        "$here/data" "$here/server.log" || true)
    equals "nowhere: $kind" "" "$found"
done
