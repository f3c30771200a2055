# ./quickstart --once, twice on the same data, as README says.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"

unset PORTOLAN_CONFIG_DIR
out=$(PORTOLAN_BIN=$PORTOLAN ./quickstart --once --data "$WORK/quick" --listen 127.0.0.1:0 2>&1) || fail "quickstart --once" "$out"
ok "quickstart --once exits 0"
says "it showed the build" "RUN pip install" printf '%s' "$out"
says "both stages of the second example" "builder" printf '%s' "$out"
says "and an echo" '"hello": *"portolan"' printf '%s' "$out"
says "and how to sign in" "login --bootstrap" printf '%s' "$out"
out=$(PORTOLAN_BIN=$PORTOLAN ./quickstart --once --data "$WORK/quick" --listen 127.0.0.1:0 2>&1) || fail "quickstart again" "$out"
ok "and again on the same data"
says "with its base image kept" "has its own python:3.11-slim" printf '%s' "$out"
