# Builds that mean harm to a whole server: each ends with a clear reason, at once when it is
# cancelled, the server goes on, and of everything there is as much after as before.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"

here=$WORK/hostile
mkdir -p "$here/ctx"
PORTOLAN_BUILD_STEP_BYTES_MAX=200MiB PORTOLAN_BUILD_STEP_FILES_MAX=20000 PORTOLAN_BUILD_BYTES_MAX=300MiB \
    PORTOLAN_BUILD_PIDS_MAX=200 PORTOLAN_BUILD_MEMORY_BYTES_MAX=512MiB PORTOLAN_BUILD_OUTPUT_BYTES_MAX=1MiB \
    PORTOLAN_BUILD_NETWORK=own "$PORTOLAN" serve --data "$here/data" --listen 127.0.0.1:0 >"$here/ready" 2>"$here/server.log" &
server=$!
trap 'kill -KILL $server 2>/dev/null || true' EXIT
for _ in $(seq 300); do
    grep -q '^portolan ready' "$here/ready" && break
    sleep 0.1
done
export PORTOLAN_CONFIG_DIR=$here/profile
p() { "$PORTOLAN" "$@"; }
p login --bootstrap "$here/data/bootstrap.json" -o none
p group create -n rg -l local -o none
p acr create -n hostilereg -g rg --sku Premium -o none
login_server=$(p acr show -n hostilereg --query loginServer -o tsv)
check "a base" p acr build -r hostilereg -t busybox:1 "${BASES:-$PORTOLAN_TEST_BASES}/busybox"

ctx=$here/ctx
order() { # the Dockerfile's steps are on standard input
    { echo "FROM $login_server/busybox:1"; cat; } >"$ctx/Dockerfile"
    p acr build -r hostilereg -t h:1 --no-push "$ctx" "$@" 2>&1
}

# Descriptors and threads of the server come and go with requests, so they are not among
# these; the builder's own tests count them.
counts() {
    echo "mounts $(grep -cE "$here|overlay|portolan" "/proc/$server/mountinfo" || true) of the host $(grep -cE "$here|overlay|portolan" /proc/self/mountinfo || true)"
    echo "processes $(pgrep -P "$server" | wc -l)"
    echo "cgroups $(find /sys/fs/cgroup -type d -path "*/portolan-*/$server-*" 2>/dev/null | wc -l)"
    echo "namespaces held $(find "/proc/$server/fd" -lname '*:\[*\]' -lname '[a-z]*' ! -lname 'socket:*' ! -lname 'pipe:*' ! -lname 'anon_inode:*' 2>/dev/null | wc -l)"
    echo "devices $(ip -o link | wc -l), loop devices $(losetup -a 2>/dev/null | wc -l)"
    echo "firewall rules $(nft list ruleset 2>/dev/null | wc -l)"
    echo "work $(find "$here/data/build/engine/snapshots/work" "$here/data/build/engine/snapshots/trash" \
        "$here/data/build/engine/steps" "$here/data/build/engine/scratch" "$here/data/build/runs" -mindepth 1 2>/dev/null | wc -l)"
}
out=$(order <<<'RUN echo warm') || fail "a harmless build" "$out"
same() { [ "$(counts)" = "$before" ]; }
sleep 1
before=$(counts)
clean() { # WHAT
    local end=$((SECONDS + 60))
    until same; do
        [ $SECONDS -lt $end ] || {
            fail "$1 leaves nothing" "$(diff <(echo "$before") <(counts))"
            return
        }
        sleep 0.2
    done
    ok "$1 leaves nothing"
}

harm() { # WHAT PATTERN: the steps are on standard input; the build fails and says PATTERN
    local out
    if out=$(order); then fail "$1 ends the build" "$out"; fi
    if grep -Eq -- "$2" <<<"$out"; then ok "$1 ends with a reason"; else fail "$1 ends with a reason" "$out"; fi
    clean "$1"
}
harm "filling the disk" "the step wrote more than 200 MiB" <<<'RUN dd if=/dev/zero of=/f bs=1M; sleep 100'
harm "a file for every number" "the step made more than 20000 files" <<<'RUN i=0; while :; do : >/tmp/$i; i=$((i+1)); done'
harm "a sparse bomb" "the step wrote more than 200 MiB" <<<'RUN busybox truncate -s 1024G /f'
harm "folders without end" "directories more than 1000 deep" <<<"RUN mkdir -p \$(printf 'd/%.0s' \$(seq 1500))"
harm "a build that takes a little, often" "the steps of this build wrote more than 300 MiB" <<'D'
RUN head -c 150000000 /dev/zero >/a
RUN head -c 150000000 /dev/zero >/b
RUN head -c 150000000 /dev/zero >/c
D
harm "a fork bomb" "exit code|can't fork" <<<'RUN b() { b | b & }; b; sleep 2; exit 3'
harm "eating the memory" "ran out of the memory a step may use" <<<'RUN dd if=/dev/zero of=/dev/null bs=800M count=1'
harm "a step without an end" "exit code: 7" <<<'RUN (setsid sleep 98991 &); exec >&- 2>&-; exit 7'
check "and nothing of it runs on" sh -c '! pgrep -f "[s]leep 98991"'

out=$(order <<<"RUN head -c 1000000000 /dev/zero | tr '\\\\0' x") || fail "a step that prints a gigabyte" "$(tail -c 2000 <<<"$out")"
[ ${#out} -lt 4000000 ] || fail "what it prints is bounded" "${#out} bytes"
says "a gigabyte of output is clipped, and the build goes on" "output clipped: a step may print 1048576 bytes" tail -c 3000 <<<"$out"
clean "printing a gigabyte"

port=${login_server##*:}
out=$(order <<D
RUN for to in 127.0.0.1 $(hostname -I | awk '{print $1}'); do test "\$(printf 'x\\r\\n\\r\\n' | nc -w 3 \$to $port | wc -c)" = 0 || echo REA''CHED; done; nc -w 3 169.254.169.254 80 </dev/null; exit 0
RUN test -z "\$(find / -xdev -name 'cgroup.procs' -writable 2>/dev/null)" && ! mount -o remount,rw /sys && ! mount -t cgroup2 none /mnt && echo kept its limits
D
) || fail "a look around" "$out"
says "the metadata address is refused, and the log says so" "\[network\] no connection to 169.254.169.254:80" printf '%s' "$out"
if grep -q REACHED <<<"$out"; then fail "the server's own port is not reached" "$out"; else ok "the server's own port is not reached"; fi
says "limits cannot be changed from inside" "[0-9.]+ kept its limits" printf '%s' "$out"

# --- cancelling, whatever the step does about it
while IFS= read -r script; do
    { echo "FROM $login_server/busybox:1"; echo "RUN : marker-77412; $script"; } >"$ctx/Dockerfile"
    p acr build -r hostilereg -t h:1 --no-push --no-wait "$ctx" -o none >/dev/null 2>&1
    eventually "it runs: $script" 30 pgrep -f "[m]arker-77412"
    run=$(p acr task list-runs -r hostilereg --query '[0].runId' -o tsv)
    begun=$(date +%s%N)
    p acr task cancel-run -r hostilereg --run-id "$run" -o none
    until ! pgrep -f "[m]arker-77412" >/dev/null && [ "$(p acr task show-run -r hostilereg --run-id "$run" --query status -o tsv)" = Canceled ]; do
        [ $((($(date +%s%N) - begun) / 1000000000)) -lt 30 ] || break
    done
    took=$((($(date +%s%N) - begun) / 1000000))
    if [ $took -lt 2000 ]; then ok "cancelled within 2 s, with every process: $script"; else fail "cancelled within 2 s: $script" "$took ms"; fi
    clean "a cancelled build"
done <<'S'
trap '' TERM INT HUP; (setsid sh -c 'trap "" TERM; sleep 1000; : marker-77412' &); sleep 1000
b() { b | b & }; b; while :; do :; done
while :; do head -c 100000000 /dev/zero >/f; done
i=0; while :; do : >/tmp/f$((i % 15000)); i=$((i+1)); done
yes
exec >&- 2>&- </dev/null; sleep 1000; :
S

check "the server goes on" p acr repository list -n hostilereg -o none
kill -TERM $server
wait $server || fail "the server ends in order" "$(tail -5 "$here/server.log")"
ok "the server ends in order"
check "no mount of it is left" sh -c "! grep -q '$here' /proc/self/mountinfo"
