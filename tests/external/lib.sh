# What the external tests share. Source it; `run` has exported the addresses.
# shellcheck shell=bash
#
#   PORTOLAN      the binary under test        LOGIN_SERVER  host:port of the registry REG
#   SERVER        https://host:port            GROUP, REG    resource group and registry
#   BOOTSTRAP     bootstrap.json               CA            the server's CA, PEM
#   WORK          a scratch directory          CERTS         a cert-dir for podman and skopeo
#   BASES         base image contexts          DOCKER_HOST   a docker daemon of our own
set -euo pipefail

# Every check says in one line what must be true; the first that is not ends the script
# with what was printed.
_checks=0
ok() {
    _checks=$((_checks + 1))
    printf 'ok - %s\n' "$1"
    echo ok >>"$RESULTS"
}
fail() {
    printf 'NOT OK - %s\n' "$1"
    [ -z "${2:-}" ] || printf '%s\n' "$2" | sed 's/^/    /'
    echo failed >>"$RESULTS"
    # For a look at all that is wrong at once: PORTOLAN_TEST_KEEP_GOING=1 tests/external/run NAME
    [ -n "${PORTOLAN_TEST_KEEP_GOING:-}" ] || exit 1
}

# check DESCRIPTION CMD…: the command succeeds.
check() {
    local what=$1 out
    shift
    if out=$("$@" 2>&1); then ok "$what"; else fail "$what" "exit $?: $*
$out"; fi
}

# refuses DESCRIPTION PATTERN CMD…: the command fails and says PATTERN.
refuses() {
    local what=$1 pattern=$2 out
    shift 2
    if out=$("$@" 2>&1); then
        fail "$what" "succeeded: $*
$out"
        return
    fi
    # No pipe: grep leaves at its first match, and under pipefail the broken pipe would count.
    if grep -Eqi -- "$pattern" <<<"$out"; then ok "$what"; else fail "$what" "no /$pattern/ in: $out"; fi
}

# says DESCRIPTION PATTERN CMD…: the command succeeds and prints PATTERN.
says() {
    local what=$1 pattern=$2 out
    shift 2
    if ! out=$("$@" 2>&1); then
        fail "$what" "exit $?: $*
$out"
        return
    fi
    if grep -Eq -- "$pattern" <<<"$out"; then ok "$what"; else fail "$what" "no /$pattern/ in: $out"; fi
}

# equals DESCRIPTION EXPECTED ACTUAL
equals() {
    if [ "$2" = "$3" ]; then ok "$1"; else fail "$1" "expected: $2
got:      $3"; fi
}

# eventually DESCRIPTION SECONDS CMD…: the command succeeds before the time is over.
eventually() {
    local what=$1 end=$((SECONDS + $2))
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || { fail "$what" "never: $*" && return; }
        sleep 0.1
    done
    ok "$what"
}

NULL_USER=00000000-0000-0000-0000-000000000000
# A refresh token for docker-like clients.
refresh_token() { "$PORTOLAN" acr login --name "$REG" --expose-token --query accessToken -o tsv 2>/dev/null; }

# A password of the registry's admin user, whose name is the registry's.
admin_password() { "$PORTOLAN" acr credential show --name "$REG" --query 'passwords[0].value' -o tsv; }

# tool NAME: the path of a client that scripts/test-tools brings, built when it is not there.
tool() {
    local tools=${PORTOLAN_TEST_TOOLS:-$PWD/target/tools}
    PORTOLAN_TEST_TOOLS=$tools scripts/test-tools "$1" >&2 || return 1
    printf '%s/%s\n' "$tools" "$1"
}

# sign_in CLIENT…: log docker, podman, buildah or skopeo in.
sign_in() {
    case $1 in
    docker) refresh_token | docker login --username $NULL_USER --password-stdin "$LOGIN_SERVER" ;;
    *) refresh_token | "$1" login --cert-dir "$CERTS" --username $NULL_USER --password-stdin "$LOGIN_SERVER" ;;
    esac
}
