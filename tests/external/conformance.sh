# The OCI distribution specification's own conformance tests, all four workflows (pull, push,
# content discovery, content management): as the specification stands, and as its next
# version is to be.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"

suite=$(tool conformance)
password=$(admin_password)

# conformance VERSION SETTING=VALUE…: run the suite; its report is left in $out.log.
conformance() {
    local version=$1
    shift
    env SSL_CERT_FILE="$CA" OCI_CONFIGURATION=/nonexistent OCI_REGISTRY="$LOGIN_SERVER" OCI_TLS=enabled \
        OCI_REPO1="conformance/$version/one" OCI_REPO2="conformance/$version/two" \
        OCI_USERNAME="$REG" OCI_PASSWORD="$password" OCI_VERSION="$version" OCI_RESULTS_DIR="$out" \
        OCI_API_BLOBS_DIGEST_HEADER=true OCI_API_MANIFESTS_DIGEST_HEADER=true OCI_API_BLOBS_UPLOAD_CANCEL=true \
        "$@" "$suite" >"$out.log" 2>&1
}

# nothing FAIL|Error|Skip…: the report has no test with this result.
nothing() { ! grep -E "^ *OCI Conformance Test.*: $1\$" "$out.log"; }

# counted: the line of the report that says how much was run.
counted() { sed -n "s/^ *$1\\.*: *\\([0-9]*\\)\$/\\1/p" "$out.log" | head -n 1; }

# Left out is what the specification lets a registry refuse, and this one does: manifests of
# content that is not there (OCI_DATA_SPARSE, off in the suite itself).
for version in 1.1 dev; do
    out=$WORK/conformance-$version
    check "conformance $version passes" conformance $version OCI_API_BLOBS_MOUNT_ANONYMOUS=true
    check "  nothing of it failed" nothing FAIL
    check "  nothing of it went wrong" nothing Error
    check "  nothing of it was skipped" nothing Skip
    total=$(counted Total)
    check "  and it ran ($total tests)" test "$total" -ge 850
done
