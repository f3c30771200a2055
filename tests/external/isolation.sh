# What a RUN step may not do: see or touch the host, keep running, use more than its share.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"

ctx=$WORK/iso
mkdir -p "$ctx"
build() { # build NAME: the Dockerfile is on standard input
    cat >"$ctx/Dockerfile"
    "$PORTOLAN" acr build -r $REG -t "iso:$1" --no-push "$ctx" 2>&1
}
echo secret-of-the-host >"$WORK/host-secret"

out=$(build ns <<D
FROM busybox
RUN echo "pid \$\$ of \$(ls /proc | grep -c '^[0-9]')"
RUN test ! -e $WORK/host-secret && test ! -e /var/tmp/portolan* && echo no host files
RUN hostname | grep -v '^$(hostname)\$' && echo own hostname
RUN grep -E '^Cap(Eff|Bnd)' /proc/self/status
RUN mount -t tmpfs none /mnt 2>&1 && echo MOUNTED || echo mount refused
RUN mknod /disk b 8 0 2>/dev/null && head -c1 /disk 2>&1 && echo READ || echo disk refused
RUN echo 1 >/proc/sys/kernel/panic && echo WROTE || echo sysctl refused
RUN echo "root is \$(awk '{ print \$2; exit }' /proc/self/uid_map) on the host"
RUN grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status
RUN unshare -U true 2>&1 && echo UNSHARED || echo unshare refused
D
) || fail "the probe builds" "$out"
says "processes of the host are not seen" "pid 1 of [1-9]([^0-9]|$)" printf '%s' "$out"
says "nor are its files" "[0-9.]+ no host files" printf '%s' "$out"
says "the host name is its own" "[0-9.]+ own hostname" printf '%s' "$out"
says "the capabilities are docker's default and no more" "CapEff:[[:space:]]*00000000a80425fb" printf '%s' "$out"
says "mounting is refused" "[0-9.]+ mount refused" printf '%s' "$out"
says "disks cannot be read" "[0-9.]+ disk refused" printf '%s' "$out"
says "root is nobody on the host" "root is 2147483648 on the host" printf '%s' "$out"
says "system calls are filtered" "Seccomp:[[:space:]]*2" printf '%s' "$out"
says "nobody gets new privileges" "NoNewPrivs:[[:space:]]*1" printf '%s' "$out"
says "nor a user namespace of their own" "[0-9.]+ unshare refused" printf '%s' "$out"
says "kernel settings cannot be written" "[0-9.]+ sysctl refused" printf '%s' "$out"

printf 'FROM busybox\nRUN (sleep 9871 &) ; echo left one behind\n' >"$ctx/Dockerfile"
out=$("$PORTOLAN" acr build -r $REG -t iso:bg --no-push "$ctx" 2>&1) || fail "a step with a background child builds" "$out"
eventually "a background child is gone with its step" 5 sh -c '! pgrep -f "[s]leep 9871"'

printf 'FROM busybox\nRUN sleep 9872\n' >"$ctx/Dockerfile"
"$PORTOLAN" acr build -r $REG -t iso:cancel --no-push --no-wait "$ctx" -o none >/dev/null 2>&1
eventually "a long step runs" 20 pgrep -f "[s]leep 9872"
run=$("$PORTOLAN" acr task list-runs -r $REG --query '[0].runId' -o tsv)
check "cancel-run" "$PORTOLAN" acr task cancel-run -r $REG --run-id "$run"
eventually "a cancelled step is gone" 5 sh -c '! pgrep -f "[s]leep 9872"'
eventually "and its run is Canceled" 10 sh -c "[ \"\$('$PORTOLAN' acr task show-run -r $REG --run-id $run --query status -o tsv)\" = Canceled ]"

out=$(build fork <<'D'
FROM busybox
RUN i=0; while [ $i -lt 20000 ]; do sleep 30 & i=$((i+1)); done 2>/tmp/err; grep -ci "fork" /tmp/err && echo fork refused; exit 0
D
) || true
says "a fork bomb meets its limit" "fork refused|can't fork|Resource temporarily|exit code" printf '%s' "$out"
check "and the server goes on" "$PORTOLAN" acr repository list -n $REG
