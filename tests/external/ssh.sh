# Builds that fetch from where one has to sign in: real git and ssh in a step, a real sshd, with
# keys that go with the order and with an agent of the client's own. And RUN --network=host, by
# which the steps here reach that sshd.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"

here=$WORK/ssh
mkdir -p "$here"/{sshd,ctx/root}
PORTOLAN_BUILD_ALLOW_HOST_NETWORK=true \
    "$PORTOLAN" serve --data "$here/data" --listen 127.0.0.1:0 >"$here/ready" 2>"$here/server.log" &
server=$!
sshd='' agent=''
trap 'kill -KILL $server $sshd $agent 2>/dev/null || true' EXIT
for _ in $(seq 300); do
    grep -q '^portolan ready' "$here/ready" && break
    sleep 0.1
done
export PORTOLAN_CONFIG_DIR=$here/profile
p() { "$PORTOLAN" "$@"; }
p login --bootstrap "$here/data/bootstrap.json" -o none
p group create -n rg -l local -o none
p acr create -n sshreg -g rg --sku Premium -o none
p acr build -r sshreg -t busybox:latest "$BASES/busybox" >"$here/base.log" 2>&1 || fail "the base builds" "$(tail "$here/base.log")"

# --- a private repository, and who may read it
for kind in ed25519 rsa ecdsa; do
    ssh-keygen -q -t $kind -N '' -C "$kind@here" -f "$here/$kind"
done
ssh-keygen -q -t ed25519 -N '' -C stranger -f "$here/stranger"
ssh-keygen -q -t ed25519 -N 'a passphrase' -C closed -f "$here/closed"
git init -q --bare -b main "$here/private.git"
git init -q -b main "$here/work"
(
    cd "$here/work"
    echo "what is private" >README
    git add README
    git -c user.name=t -c user.email=t@t commit -q -m first
    git push -q "$here/private.git" main
)
git config --global --get-all safe.directory >/dev/null 2>&1 || true
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
ssh-keygen -q -t ed25519 -N '' -f "$here/sshd/host"
cat "$here"/{ed25519,rsa,ecdsa}.pub >"$here/sshd/authorized"
cat >"$here/sshd/config" <<D
Port $port
ListenAddress 127.0.0.1
HostKey $here/sshd/host
AuthorizedKeysFile $here/sshd/authorized
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
ForceCommand git-shell -c "\$SSH_ORIGINAL_COMMAND"
D
mkdir -p /run/sshd
/usr/sbin/sshd -D -e -f "$here/sshd/config" 2>"$here/sshd/log" &
sshd=$!
eventually "sshd listens" 10 grep -q "Server listening" "$here/sshd/log"

# --- git and ssh of this machine, for the image
for program in /usr/bin/git /usr/bin/ssh /usr/bin/ssh-add /usr/lib/git-core/git; do
    for file in "$program" $(ldd "$program" | grep -o '/[^ ]*'); do
        mkdir -p "$here/ctx/root$(dirname "$file")"
        cp -L "$file" "$here/ctx/root$file"
    done
done
cat >"$here/ctx/Dockerfile" <<D
FROM busybox
COPY root/ /
ARG AGAIN
ENV GIT_SSH_COMMAND="ssh -p $port -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=/tmp/known"
RUN --network=host --mount=type=ssh,required=true ssh-add -l && git clone -q ssh://root@127.0.0.1$here/private.git /src && echo "got: \$(cat /src/README)" # \$AGAIN
RUN ls -R /run /tmp | grep -c agent || true; test -z "\$SSH_AUTH_SOCK"
D
build() { # build NAME ARGS…: always from the start
    local name=$1
    shift
    p acr build -r sshreg -t "app:$name" --build-arg "AGAIN=$name" "$@" "$here/ctx" 2>&1
}

# --- keys that go with the order
for kind in ed25519 rsa ecdsa; do
    says "a build clones with an $kind key" "got: what is private" build "$kind" --ssh "default=$here/$kind"
done
says "the agent names the keys it has" "ecdsa@here \(ECDSA\)" build several --ssh "default=$here/rsa,$here/ecdsa"
refuses "a key that nobody knows there clones nothing" "Permission denied" build stranger --ssh "default=$here/stranger"
refuses "a key under a passphrase is refused in words" "passphrase" build closed --ssh "default=$here/closed"
refuses "without a key the step says what is missing" "the ssh agent default was not given" build none
refuses "another id is another agent" "the ssh agent default was not given" build other --ssh "git=$here/ed25519"

# --- the client's own agent
eval "$(ssh-agent -a "$here/agent" | sed 's/echo.*//')" && agent=$SSH_AGENT_PID
export SSH_AUTH_SOCK=$here/agent
refuses "an agent without keys helps nobody" "no identities|Permission denied" build empty --ssh default
ssh-add -q "$here/ed25519"
says "a build clones with the client's own agent" "got: what is private" build agent --ssh default
says "by the socket's name, too" "got: what is private" build socket --ssh "default=$here/agent"
check "which still has its key" grep -q ed25519@here <(ssh-add -l)
refuses "nobody answers for a build that is not followed" "only while the build is followed" build alone --no-wait --ssh default

# --- a step cannot do more with an agent than sign
cat >"$here/ctx/Dockerfile.evil" <<'D'
FROM busybox
COPY root/ /
RUN --mount=type=ssh ssh-add -D; ssh-add -x </dev/null; ssh-add -l
D
p acr build -r sshreg -t app:evil -f "$here/ctx/Dockerfile.evil" --ssh default "$here/ctx" >"$here/evil.log" 2>&1 || true
check "removing the client's keys is refused" grep -q "Failed to remove all identities" "$here/evil.log"
check "and they are still there" grep -q ed25519@here <(ssh-add -l)

# --- nobody but who ordered a run answers for it
cat >"$here/ctx/Dockerfile.wait" <<'D'
FROM busybox
COPY root/ /
RUN --mount=type=ssh sleep 20; ssh-add -l
D
p acr build -r sshreg -t app:wait -f "$here/ctx/Dockerfile.wait" --ssh default "$here/ctx" >"$here/wait.log" 2>&1 &
waiting=$!
eventually "a build with the client's agent runs" 60 grep -q "RUN --mount=type=ssh sleep" "$here/wait.log"
run=$(p acr task list-runs -r sshreg --query '[0].runId' -o tsv)
id=$(p acr show -n sshreg --query id -o tsv)
url=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["server"])' "$here/data/bootstrap.json")
sp=$(p ad sp create-for-rbac -n thief --role Owner --scopes "$id" 2>/dev/null)
get() { python3 -c 'import json,sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1" <<<"$sp"; }
token=$(curl -sS --cacert "$here/data/tls/ca.pem" -d grant_type=client_credentials -d "client_id=$(get appId)" \
    --data-urlencode "client_secret=$(get password)" --data-urlencode "scope=$url/.default" \
    "$url/$(get tenant)/oauth2/v2.0/token" | python3 -c 'import json,sys; print(json.load(sys.stdin)["access_token"])')
relay() { # relay TOKEN: as that client, look what the run asks
    curl -sS --cacert "$here/data/tls/ca.pem" -o "$here/relay.json" -w '%{http_code}' -H "Authorization: Bearer $1" \
        -H 'Content-Type: application/json' -d '{}' "$url$id/runs/$run/relayAgent?api-version=2019-06-01-preview"
}
equals "an owner of the registry who did not order the run is refused" 403 "$(relay "$token")"
equals "nobody at all is, too" 401 "$(relay nonsense)"
check "cancel-run" p acr task cancel-run -r sshreg --run-id "$run"
wait $waiting || true
kill -TERM $server
wait $server || fail "the server ends in order"

# --- keys and what was said to agents are nowhere
for kind in ed25519 rsa ecdsa; do
    line=$(sed -n 3p "$here/$kind")
    equals "the $kind key is nowhere" "" "$(grep -rlaF -e "$line" -e "$(base64 -w0 <"$here/$kind" | head -c 200)" "$here/data" "$here/server.log" || true)"
done
trap - EXIT
kill -TERM $sshd $agent
