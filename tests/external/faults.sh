# kill -9 in the middle of a push and of a build, a full disk, hostile contexts: each gets
# a clear error, nothing half-written, and the server goes on.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"

# A server of our own, so that the others' is not disturbed.
data=$WORK/faults
export PORTOLAN_CONFIG_DIR=$WORK/faults-profile
pid=
serve() { # serve PORT: the server on $data, ready; 0 takes a free port
    : >"$WORK/faults-ready"
    "$PORTOLAN" serve --data "$data" --listen "127.0.0.1:$1" >"$WORK/faults-ready" 2>>"$WORK/faults.log" &
    pid=$!
    for _ in $(seq 200); do
        grep -q '^portolan ready' "$WORK/faults-ready" && return
        kill -0 $pid 2>/dev/null || fail "the server starts" "$(tail "$WORK/faults.log")"
        sleep 0.05
    done
    fail "the server starts" "$(tail "$WORK/faults.log")"
}
start() { # a new server with a registry
    serve 0
    url=$(sed -n 's/.*"server": *"\([^"]*\)".*/\1/p' "$data/bootstrap.json")
    "$PORTOLAN" login --bootstrap "$data/bootstrap.json" -o none
    "$PORTOLAN" group create --name rg --location local -o none
    "$PORTOLAN" acr create -g rg -n faultreg --sku Basic --admin-enabled true -o none
    pass=$("$PORTOLAN" acr credential show -n faultreg --query 'passwords[0].value' -o tsv)
    login=$("$PORTOLAN" acr show -n faultreg --query loginServer -o tsv)
}
trap '[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true; umount "$data" 2>/dev/null || true' EXIT
curl_() { curl -sS --cacert "$data/tls/ca.pem" -u "faultreg:$pass" "$@"; }

start
ok "a server starts"
"$PORTOLAN" acr build -r faultreg -t busybox:latest "$BASES/busybox" >/dev/null 2>&1 || fail "the base builds"

# --- an upload cut by kill -9, resumed after a restart
head -c 50000000 /dev/urandom >"$WORK/blob"
digest=sha256:$(sha256sum "$WORK/blob" | cut -d' ' -f1)
location=$(curl_ -X POST -D - -o /dev/null "https://$login/v2/cut/blobs/uploads/" | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
case $location in http*) ;; *) location=https://$login$location ;; esac
head -c 20000000 "$WORK/blob" | curl_ -X PATCH -D "$WORK/h" -o /dev/null -H 'Content-Type: application/octet-stream' --data-binary @- "$location"
says "a chunk is acknowledged" "^HTTP/[0-9.]+ 202" cat "$WORK/h"
kill -9 $pid
wait $pid 2>/dev/null || true
port=${login##*:}
serve "$port"
ok "after kill -9 the server starts on the same data"
check "what was acknowledged is still there" curl_ -f -o /dev/null "https://$login/v2/busybox/manifests/latest"
held=$(curl_ -D - -o /dev/null "$location" | tr -d '\r' | sed -n 's/^[Rr]ange: 0-//p')
check "the upload still knows its bytes (0-$held)" test "$held" -ge 0
from=$((held + 1))
tail -c +$((from + 1)) "$WORK/blob" | curl_ -X PATCH -D "$WORK/h" -o /dev/null -H 'Content-Type: application/octet-stream' \
    -H "Content-Range: $from-49999999" --data-binary @- "$location"
says "the rest is taken" "^HTTP/[0-9.]+ 202" cat "$WORK/h"
equals "and the blob completes" 201 "$(curl_ -X PUT -o /dev/null -w '%{http_code}' "$location?digest=$digest")"
equals "with its digest" "$digest" "sha256:$(curl_ "https://$login/v2/cut/blobs/$digest" | sha256sum | cut -d' ' -f1)"

# --- kill -9 in the middle of a build
mkdir -p "$WORK/killctx"
printf 'FROM busybox\nRUN echo one >/one\nRUN sleep 9873\n' >"$WORK/killctx/Dockerfile"
"$PORTOLAN" acr build -r faultreg -t killed:v1 --no-wait "$WORK/killctx" -o none >/dev/null 2>&1
eventually "a build is under way" 20 pgrep -f "[s]leep 9873"
kill -9 $pid
wait $pid 2>/dev/null || true
eventually "kill -9 of the server ends the step too" 5 sh -c '! pgrep -f "[s]leep 9873"'
serve "$port"
run=$("$PORTOLAN" acr task list-runs -r faultreg --query '[0].runId' -o tsv)
eventually "the run is ended honestly" 30 sh -c "'$PORTOLAN' acr task show-run -r faultreg --run-id $run --query status -o tsv | grep -Eq 'Failed|Error'"
check "and its log can be read" "$PORTOLAN" acr task logs -r faultreg --run-id "$run"
refuses "nothing half-built is visible" "404|not found|unknown" "$PORTOLAN" acr repository show -n faultreg -t killed:v1
check "no mount is left behind" sh -c "! grep -q '$data.*merged' /proc/mounts"
printf 'FROM busybox\nRUN echo one >/one\nRUN echo two >/two\n' >"$WORK/killctx/Dockerfile"
check "the next build works" "$PORTOLAN" acr build -r faultreg -t killed:v1 "$WORK/killctx"

# --- hostile contexts, straight to the wire as az would send them
python3 - "$WORK" <<'PY'
import io, sys, tarfile, gzip
work = sys.argv[1]
def make(name, entries):
    with tarfile.open(f"{work}/{name}.tgz", "w:gz", compresslevel=1) as t:
        d = tarfile.TarInfo("Dockerfile"); body = b"FROM busybox\nCOPY . /x\n"; d.size = len(body); t.addfile(d, io.BytesIO(body))
        for info, data in entries: t.addfile(info, io.BytesIO(data) if data else None)
def entry(name, type=tarfile.REGTYPE, link="", data=b"x"):
    i = tarfile.TarInfo(name); i.type = type; i.linkname = link
    i.size = len(data) if type == tarfile.REGTYPE else 0
    return i, (data if type == tarfile.REGTYPE else None)
make("dotdot", [entry("../escaped")])
make("absolute", [entry("/etc/escaped")])
make("device", [entry("disk", tarfile.BLKTYPE)])
make("hardlink", [entry("link", tarfile.LNKTYPE, "../../../etc/passwd")])
make("through", [entry("dir", tarfile.SYMTYPE, "/etc"), entry("dir/escaped")])
PY
scheduled() { # scheduled NAME: upload NAME.tgz and run it; prints the log
    local R up rel url2
    R=$("$PORTOLAN" acr show -n faultreg --query id -o tsv)
    tok=$(curl -sS --cacert "$data/tls/ca.pem" "$url/$(sed -n 's/.*"tenantId": *"\([^"]*\)".*/\1/p' "$data/bootstrap.json")/oauth2/v2.0/token" \
        -d grant_type=client_credentials -d "client_id=$(sed -n 's/.*"clientId": *"\([^"]*\)".*/\1/p' "$data/bootstrap.json")" \
        --data-urlencode "client_secret=$(sed -n 's/.*"clientSecret": *"\([^"]*\)".*/\1/p' "$data/bootstrap.json")" \
        --data-urlencode "scope=$url/.default" | jq -r .access_token)
    up=$(curl -sS --cacert "$data/tls/ca.pem" -X POST -H "Authorization: Bearer $tok" -H 'Content-Length: 0' "$url$R/listBuildSourceUploadUrl?api-version=2025-03-01-preview")
    rel=$(printf %s "$up" | jq -r .relativePath)
    url2=$(printf %s "$up" | jq -r .uploadUrl)
    curl -sS --cacert "$data/tls/ca.pem" -X PUT -H 'x-ms-blob-type: BlockBlob' --data-binary "@$WORK/$1.tgz" "$url2" >/dev/null
    run=$(curl -sS --cacert "$data/tls/ca.pem" -X POST -H "Authorization: Bearer $tok" -H 'Content-Type: application/json' \
        -d "{\"type\":\"DockerBuildRequest\",\"imageNames\":[\"hostile:v1\"],\"isPushEnabled\":true,\"sourceLocation\":\"$rel\",\"platform\":{\"os\":\"linux\",\"architecture\":\"amd64\"},\"dockerFilePath\":\"Dockerfile\",\"arguments\":[]}" \
        "$url$R/scheduleRun?api-version=2025-03-01-preview" | jq -r .properties.runId)
    "$PORTOLAN" acr task logs -r faultreg --run-id "$run" 2>&1
}
for kind in dotdot absolute device hardlink through; do
    out=$(scheduled $kind) || true
    says "a context with a hostile entry ($kind) is refused with a reason" "context|archive|entry|link|outside|device" printf '%s' "$out"
    check "and wrote nothing outside ($kind)" test ! -e /etc/escaped -a ! -e "$data/escaped"
done
refuses "and no image came of it" "404|not found|unknown" "$PORTOLAN" acr repository show -n faultreg -t hostile:v1
kill -TERM $pid
wait $pid && ok "SIGTERM drains and exits 0" || fail "SIGTERM drains and exits 0"

# --- a full disk
data=$WORK/small
mkdir -p "$data"
if mount -t tmpfs -o size=48m none "$data" 2>/dev/null; then
    export PORTOLAN_CONFIG_DIR=$WORK/small-profile
    start
    head -c 60000000 /dev/zero | tr '\0' 'x' >"$WORK/large"
    large=sha256:$(sha256sum "$WORK/large" | cut -d' ' -f1)
    code=$(curl_ -X POST -o "$WORK/full.json" -w '%{http_code}' --data-binary "@$WORK/large" -H 'Content-Type: application/octet-stream' \
        "https://$login/v2/full/blobs/uploads/?digest=$large" || true)
    check "a push that does not fit is refused (HTTP $code)" sh -c "[ '$code' = 507 ] || [ '$code' = 503 ]"
    says "and says so" "space" cat "$WORK/full.json"
    echo small >"$WORK/little"
    little=sha256:$(sha256sum "$WORK/little" | cut -d' ' -f1)
    equals "the server goes on and takes what fits" 201 "$(curl_ -X POST -o /dev/null -w '%{http_code}' --data-binary "@$WORK/little" \
        -H 'Content-Type: application/octet-stream' "https://$login/v2/full/blobs/uploads/?digest=$little")"
    check "nothing half-written stays" sh -c "[ \$(du -sm '$data' | cut -f1) -lt 30 ]"
    kill -TERM $pid
    wait $pid || true
    umount "$data"
fi
