# A server of an unprivileged user: it builds images, with owners kept, and its steps are
# nobody special.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"

user=portolan-rootless
home=$(mktemp -d /var/tmp/rootless.XXXXXX)
server=
finish() {
    set +e
    # The server is a child of su's.
    pkill -TERM -u "$user" portolan
    [ -z "$server" ] || wait "$server" 2>/dev/null
    userdel "$user" 2>/dev/null
    sed -i "/^$user:/d" /etc/subuid /etc/subgid
    rm -rf "$home"
}
trap finish EXIT
userdel "$user" 2>/dev/null || true
useradd --home-dir "$home" --shell /bin/sh "$user"
touch /etc/subuid /etc/subgid
sed -i "/^$user:/d" /etc/subuid /etc/subgid
echo "$user:700000:65536" | tee -a /etc/subuid >>/etc/subgid
cp "$PORTOLAN" "$home/portolan"
mkdir -p "$home/ctx"
cp /bin/busybox "$home/ctx/busybox"
cat >"$home/ctx/Dockerfile" <<'D'
FROM scratch
COPY --chown=1000:1001 busybox /bin/busybox
RUN ["/bin/busybox", "mkdir", "-p", "/etc", "/tmp"]
RUN ["/bin/busybox", "sh", "-c", "busybox id -u; busybox cat /proc/self/uid_map; busybox touch /etc/mine && busybox chown 33:44 /etc/mine && busybox rm -r /tmp && busybox mkdir /tmp"]
RUN ["/bin/busybox", "sh", "-c", "busybox stat -c '%n %u %g' /etc/mine /bin/busybox; busybox grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status"]
D
chown -R "$user" "$home"

as() { su "$user" -c "cd '$home' && HOME='$home' PORTOLAN_CONFIG_DIR='$home/profile' && export HOME PORTOLAN_CONFIG_DIR && $1"; }
as "exec ./portolan serve --data '$home/data' --listen 127.0.0.1:0 >'$home/log' 2>&1" &
server=$!
eventually "the server of an unprivileged user starts" 30 test -s "$home/data/bootstrap.json"
client() { as "./portolan $1"; }
eventually "and answers" 20 client "login --bootstrap '$home/data/bootstrap.json'"
pid=$(pgrep -u "$user" -f "portolan serve" | head -1)
equals "on the machine it is that user" "$(id -u "$user")" "$(awk '/^Uid:/ { print $2 }' "/proc/$pid/status")"
says "with its subordinate ids" "1 +700000 +65536" cat "/proc/$pid/uid_map"

check "a registry" client "group create -n rg -l local -o none"
check "is made" client "acr create -g rg -n rootless --sku Basic -o none"
out=$(client "acr build -r rootless -t app:v1 '$home/ctx'" 2>&1) || fail "it builds an image" "$out
$(tail -20 "$home/log")"
says "a step is root there" "[0-9.]+ 0$" printf '%s' "$out"
says "in a user namespace with as many ids as the user has" "[0-9.]+ +1 +1 +65536" printf '%s' "$out"
says "owners are kept from step to step" "/etc/mine 33 44" printf '%s' "$out"
says "and those that COPY gives" "/bin/busybox 1000 1001" printf '%s' "$out"
says "under the filter of system calls" "Seccomp:[[:space:]]*2" printf '%s' "$out"
says "without new privileges" "NoNewPrivs:[[:space:]]*1" printf '%s' "$out"
check "the image is there" client "acr repository show -n rootless --image app:v1 -o none"
equals "nothing is mounted afterwards" "" "$(grep -F "$home" /proc/mounts || true)"

# Without subordinate ids.
kill "$pid"
wait "$server" 2>/dev/null || true
server=
sed -i "/^$user:/d" /etc/subuid /etc/subgid
as "exec ./portolan serve --data '$home/data2' --listen 127.0.0.1:0 >'$home/log2' 2>&1" &
server=$!
eventually "without subordinate ids it starts as well" 30 test -s "$home/data2/bootstrap.json"
check "and says what that means" grep -q "no subordinate ids" "$home/log2"
