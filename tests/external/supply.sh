# Caches, attestations and bytes that come out the same: our command line, docker's BuildKit,
# oras and az on what a build made.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/external/az-lib.sh
. "$(dirname "$0")/az-lib.sh"

work=$WORK/supply
mkdir -p "$work/src"
cat >"$work/src/Dockerfile" <<EOT
FROM busybox AS make
RUN cat /proc/sys/kernel/random/uuid > /made
FROM busybox
ARG SOURCE_DATE_EPOCH
COPY --from=make /made /made
COPY main.txt /srv/
RUN cat /proc/sys/kernel/random/uuid > /once
EOT
echo one >"$work/src/main.txt"
# The log of a build; cached LOG counts the steps that were found.
build() { "$PORTOLAN" acr build -r "$REG" --progress plain "$@" "$work/src" 2>&1; }
cached() { grep -c ' CACHED' <<<"$1"; }
digest_of() { "$PORTOLAN" acr repository show --name "$REG" --image "$1" --query digest -o tsv; }
oras_client=$(tool oras)
# Go looks names below localhost up like any other: a hosts file of its own has the second one.
{ cat /etc/hosts && echo "127.0.0.1 supplyreg.localhost"; } >"$work/hosts"
go_client() { unshare -m sh -c 'mount --bind "$0" /etc/hosts && exec "$@"' "$work/hosts" "$oras_client" "$@"; }
oras() { go_client "$@" --plain-http=false --ca-file "$CA" --registry-config "$work/auth.json"; }
admin_password | oras login "$LOGIN_SERVER" --username "$REG" --password-stdin >/dev/null

# --- caches -----------------------------------------------------------------------------
says "a cache is written" "Exported cache to $LOGIN_SERVER/cache:app: 4 steps" \
    build -t supply:1 --cache-to "type=registry,ref=$LOGIN_SERVER/cache:app,mode=max"
says "as BuildKit writes it" "application/vnd.buildkit.cacheconfig.v0" oras manifest fetch "$LOGIN_SERVER/cache:app"
says "in its first form, too" "Exported cache" \
    build -t supply:1 --cache-to "type=registry,ref=$LOGIN_SERVER/cache:index,mode=max,image-manifest=false"
says "which is an index" "application/vnd.oci.image.index.v1" oras manifest fetch "$LOGIN_SERVER/cache:index"
says "and inline" "was successful" build -t supply:inline --cache-to type=inline

"$PORTOLAN" acr create --resource-group "$GROUP" --name supplyreg --sku Premium --admin-enabled true -o none
OTHER=$("$PORTOLAN" acr show --name supplyreg --query loginServer -o tsv)
"$PORTOLAN" acr credential show --name supplyreg --query 'passwords[0].value' -o tsv |
    oras login "$OTHER" --username supplyreg --password-stdin >/dev/null
copy() { go_client cp --from-registry-config "$work/auth.json" --to-registry-config "$work/auth.json" \
    --from-plain-http=false --to-plain-http=false --from-ca-file "$CA" --to-ca-file "$CA" "$LOGIN_SERVER/$1" "$OTHER/$1"; }
check "oras carries the base to another registry" copy busybox:latest
check "and the cache" copy cache:app
check "and the image with the inline cache" copy supply:inline
other() { "$PORTOLAN" acr build -r supplyreg --progress plain "$@" "$work/src" 2>&1; }
log=$(other -t supply:1 --cache-from "type=registry,ref=$OTHER/supply:inline")
equals "a registry that has built nothing finds the image's steps inline" 3 "$(grep -cE '\[stage-1 [2-4]/4\]' <<<"$log")"
says "and its image is the same" "$(digest_of supply:1)" \
    "$PORTOLAN" acr repository show --name supplyreg --image supply:1 --query digest -o tsv
equals "all of them, with the FROM of both stages" 5 "$(cached "$log")"
log=$(other -t supply:2 --no-cache --cache-from "type=registry,ref=$OTHER/cache:app")
equals "without the cache it is done anew" 0 "$(cached "$log")"
says "a cache that is not there is told, and no failure" "cache:none failed: .*" \
    other -t supply:3 --cache-from "$OTHER/cache:none"
refuses "a cache of a kind that is no server's is refused" "type=local cannot|no field" other -t supply:3 --cache-to type=local,dest=/x

# docker's BuildKit reads ours and goes on, writes its own, and finds that again. Clients from 23.0
# on reach it by their plugin only, which distributions leave out: PORTOLAN_TEST_BUILDX is its path.
has_buildkit() { docker buildx version >/dev/null 2>&1 || [ "$(docker version --format '{{.Client.Version}}' | cut -d. -f1)" -lt 23 ]; }
export DOCKER_CONFIG=$work/docker-config
mkdir -p "$DOCKER_CONFIG/cli-plugins"
[ -z "${PORTOLAN_TEST_BUILDX:-}" ] || cp "$PORTOLAN_TEST_BUILDX" "$DOCKER_CONFIG/cli-plugins/docker-buildx"
sign_in docker >/dev/null 2>&1
# BuildKit asks every registry on localhost without TLS; tokens it asks for with.
PLAIN=localhost:$(sed -n 's#.*(http://127.0.0.1:\([0-9]*\)).*#\1#p' "$WORK/ready")
admin_password | docker login --username "$REG" --password-stdin "$PLAIN" >/dev/null 2>&1
if has_buildkit; then
    mkdir -p "$work/bk"
    printf 'FROM %s/busybox:latest\nRUN cat /proc/sys/kernel/random/uuid > /bk\n' "$PLAIN" >"$work/bk/Dockerfile"
    bk() { SSL_CERT_FILE=$CA DOCKER_BUILDKIT=1 docker build --progress plain --network none "$@" "$work/bk" 2>&1; }
    docker builder prune -af >/dev/null 2>&1
    for form in app index; do
        says "BuildKit takes in a cache that we wrote ($form)" "importing cache manifest from $PLAIN/cache:$form" \
            bk -t "$PLAIN/bk:1" --cache-from "$PLAIN/cache:$form" --build-arg BUILDKIT_INLINE_CACHE=1
    done
    check "and pushes an image with its own inline cache" docker push "$PLAIN/bk:1"
    docker image rm -f "$PLAIN/bk:1" >/dev/null
    docker builder prune -af >/dev/null 2>&1
    says "which it finds its steps in" "CACHED" bk -t "$PLAIN/bk:2" --cache-from "$PLAIN/bk:1"
    printf 'FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /bk\n' >"$work/src/Dockerfile.bk"
    says "we take in BuildKit's, and go on" "Importing cache from $LOGIN_SERVER/bk:1: [0-9]+ steps" \
        build -t bk:3 -f Dockerfile.bk --cache-from "$LOGIN_SERVER/bk:1"
    rm "$work/src/Dockerfile.bk"
else
    echo "# docker has no BuildKit here: nothing was tried with it"
fi

# --- the same bytes ---------------------------------------------------------------------
printf 'FROM busybox\nCOPY . /srv/\nRUN mkdir /d && date > /dev/null && echo x > /d/x && ln /d/x /d/y\n' >"$work/src/Dockerfile"
epoch() { SOURCE_DATE_EPOCH=1700000000 build "$@" >"$work/log" && digest_of "$2"; }
first=$(epoch -t epoch:1 --no-cache --provenance=mode=max --sbom=true)
sleep 1.1
touch "$work/src/main.txt" "$work/src/Dockerfile"
second=$(epoch -t epoch:1 --no-cache --provenance=mode=max --sbom=true)
equals "with SOURCE_DATE_EPOCH an index with attestations comes out the same, to the byte" "$first" "$second"
plain=$(build -t epoch:2 --no-cache >/dev/null && digest_of epoch:2)
[ "$plain" != "$(build -t epoch:2 --no-cache >/dev/null && digest_of epoch:2)" ] &&
    ok "and without it something differs" || fail "without SOURCE_DATE_EPOCH two builds agree: the check cannot fail"

# --- attestations -------------------------------------------------------------------------
says "oras discovers them from the tag" "application/vnd.in-toto\+json" oras discover "$LOGIN_SERVER/epoch:1"
says "and from the image of a platform" "application/vnd.in-toto\+json" \
    oras discover --platform linux/amd64 "$LOGIN_SERVER/epoch:1"
index=$(oras manifest fetch "$LOGIN_SERVER/epoch:1")
says "docker's place for them is filled" "vnd.docker.reference.type.*attestation-manifest" echo "${index//$'\n'/ }"
child=$(python3 -c 'import json,sys; print(json.load(sys.stdin)["manifests"][1]["digest"])' <<<"$index")
blobs=$(oras manifest fetch "$LOGIN_SERVER/epoch@$child" |
    python3 -c 'import json,sys; [print(l["digest"]) for l in json.load(sys.stdin)["layers"]]')
for blob in $blobs; do oras blob fetch --output - "$LOGIN_SERVER/epoch@$blob"; echo; done >"$work/statements"
says "SPDX among them" '"spdxVersion":"SPDX-2.3"' cat "$work/statements"
says "and SLSA provenance" '"predicateType":"https://slsa.dev/provenance/v1"' cat "$work/statements"
check "docker pulls such an image" docker pull -q "$LOGIN_SERVER/epoch:1"
says "and runs it" "^x$" docker run --rm --network none "$LOGIN_SERVER/epoch:1" cat /d/y

if docker buildx version >/dev/null 2>&1; then
    says "docker buildx imagetools reads the packages" '"spdxVersion": *"SPDX-2.3"' \
        env SSL_CERT_FILE="$CA" docker buildx imagetools inspect --format '{{ json .SBOM }}' "$PLAIN/epoch:1"
    says "and the provenance" 'urn:portolan:build:dockerfile:v1' \
        env SSL_CERT_FILE="$CA" docker buildx imagetools inspect --format '{{ json .Provenance }}' "$PLAIN/epoch:1"
fi

real_az
says "az lists them as referrers" "application/vnd.in-toto" \
    az acr manifest list-referrers -r "$REG" -n epoch:1 -o json
says "packages of a real base are listed" '"pkg:deb/debian/' sh -c "
    printf 'FROM python:3.11-slim\n' >'$work/src/Dockerfile'
    '$PORTOLAN' acr build -r '$REG' -t sbom:1 --sbom=true '$work/src' >/dev/null 2>&1
    child=\$('$oras_client' manifest fetch --plain-http=false --ca-file '$CA' --registry-config '$work/auth.json' '$LOGIN_SERVER/sbom:1' |
        python3 -c 'import json,sys; print(json.load(sys.stdin)[\"manifests\"][1][\"digest\"])')
    blob=\$('$oras_client' manifest fetch --plain-http=false --ca-file '$CA' --registry-config '$work/auth.json' '$LOGIN_SERVER/sbom@'\$child |
        python3 -c 'import json,sys; print(json.load(sys.stdin)[\"layers\"][0][\"digest\"])')
    '$oras_client' blob fetch --plain-http=false --ca-file '$CA' --registry-config '$work/auth.json' --output - '$LOGIN_SERVER/sbom@'\$blob"
