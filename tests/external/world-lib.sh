# A world of a script's own: a network of its own in which the server has port 443 and every
# registry the name that the guide writes, NAME.azurecr.io, with a docker daemon and the real
# az in it. So the guide's lines run as they stand, sign-in with a password reaches the port
# that az insists on, and 169.254.169.254 is ours. Nothing outside can be reached, nor reaches
# in: what has to be installed is, before. Source it after lib.sh and az-lib.sh, first thing: it
# starts the script again inside.
# shellcheck shell=bash
#
#   WORLD         a folder of this world's own     REG, LOGIN_SERVER   the world's main registry
#   SERVER …      as in lib.sh, of the server in it
#   world_names   names besides the registry's that must lead to the server; set before sourcing

if [ -z "${IN_WORLD:-}" ]; then
    IN_WORLD=1 exec unshare --mount --net --propagation private bash "$0" "$@"
fi

WORLD=$WORK/world-$(basename "$0" .sh)
REG=mycontainerreg$(date +%s)
GROUP=rg-containers
mkdir -p "$WORLD"
busybox ip link set lo up
busybox ip address add 169.254.169.254/32 dev lo
{
    echo "127.0.0.1 localhost $(hostname)"
    # What the server's own host is called, and the registries.
    for name in azurecr.io "$REG.azurecr.io" "$REG.local.data.azurecr.io" "$REG.eastus.data.azurecr.io" ${world_names:-}; do
        echo "127.0.0.1 $name"
    done
} >"$WORLD/hosts"
mount --bind "$WORLD/hosts" /etc/hosts

_world_server='' _world_dockerd=''
_world_end() {
    local status=$?
    trap - EXIT
    [ -z "$_world_server" ] || { kill -TERM "$_world_server" && wait "$_world_server"; } 2>/dev/null || true
    [ -z "$_world_dockerd" ] || { kill -TERM "$_world_dockerd" && wait "$_world_dockerd"; } 2>/dev/null || true
    if [ $status != 0 ]; then
        echo "--- the last lines of this world's server" >&2
        grep -vE '"level":"INFO"|"log":"(access|audit)"' "$WORLD/server.log" | tail -n 20 >&2 || true
    fi
    exit $status
}
trap _world_end EXIT

# world_serve [SETTING=VALUE…]: (re)start the server, with settings of the environment.
world_serve() {
    [ -z "$_world_server" ] || { kill -TERM "$_world_server" && wait "$_world_server"; } 2>/dev/null || true
    : >"$WORLD/ready"
    env "$@" "$PORTOLAN" serve --data "$WORLD/data" --listen 127.0.0.1:443 --domain azurecr.io \
        --listen-http 169.254.169.254:80 >"$WORLD/ready" 2>>"$WORLD/server.log" &
    _world_server=$!
    local _
    for _ in $(seq 300); do
        grep -q '^portolan ready' "$WORLD/ready" && return
        kill -0 "$_world_server" 2>/dev/null || break
        sleep 0.1
    done
    fail "the server of this world starts" "$(tail "$WORLD/server.log")"
}

# world_docker: a docker daemon in this world.
world_docker() {
    export DOCKER_HOST=unix://$WORLD/docker.sock DOCKER_CONFIG=$WORLD/docker-config
    mkdir -p "$DOCKER_CONFIG"
    dockerd --data-root "$WORLD/docker" --exec-root "$WORLD/docker-exec" --host "$DOCKER_HOST" \
        --bridge none --iptables=false --pidfile "$WORLD/docker.pid" >"$WORLD/dockerd.log" 2>&1 &
    _world_dockerd=$!
    local _
    for _ in $(seq 300); do docker version >/dev/null 2>&1 && return || sleep 0.1; done
    fail "the docker daemon of this world starts" "$(tail "$WORLD/dockerd.log")"
}

world_serve
export BOOTSTRAP=$WORLD/data/bootstrap.json CA=$WORLD/data/tls/ca.pem
SERVER=$(sed -n 's/.*"server": *"\([^"]*\)".*/\1/p' "$BOOTSTRAP")
LOGIN_SERVER=$REG.azurecr.io
export SERVER GROUP REG LOGIN_SERVER PORTOLAN_CONFIG_DIR=$WORLD/profile

# not CMD…: the command fails.
not() { ! "$@"; }

# image DIR TEXT: the context of an image of one file, which needs no base.
image() {
    mkdir -p "$1"
    printf '%s\n' "$2" >"$1/message"
    printf 'FROM scratch\nCOPY message /message\nCMD ["/message"]\n' >"$1/Dockerfile"
}

# push REFERENCE: build the image of $WORLD/ctx under this name and push it.
push() {
    [ -e "$WORLD/ctx/Dockerfile" ] || image "$WORLD/ctx" "$1"
    docker build -q -t "$1" "$WORLD/ctx" && docker push "$1"
}

# pull REFERENCE: from the registry, not from what docker still has.
pull() {
    docker rmi "$1" >/dev/null 2>&1 || true
    docker pull "$1"
}

# docker_as USER PASSWORD: docker is signed in to the world's registry as USER and as no other.
docker_as() {
    docker logout "$LOGIN_SERVER" >/dev/null 2>&1 || true
    printf '%s' "$2" | docker login "$LOGIN_SERVER" --username "$1" --password-stdin
}
