# The OCI distribution specification's own conformance tests, all four workflows (pull, push,
# content discovery, content management): as the specification stands, and as its next
# version is to be.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"

suite=$(tool conformance)
password=$(admin_password)
# Everything is set by the environment; a file that is not there it takes for a failure, and
# ends as if all were well.
echo '{}' >"$WORK/conformance.yaml"

# conformance VERSION SETTING=VALUE…: run the suite; its report is left in $report.log.
conformance() {
    local version=$1
    shift
    env SSL_CERT_FILE="$CA" OCI_CONFIGURATION="$WORK/conformance.yaml" OCI_REGISTRY="$LOGIN_SERVER" OCI_TLS=enabled \
        OCI_REPO1="conformance/$version/one" OCI_REPO2="conformance/$version/two" \
        OCI_USERNAME="$REG" OCI_PASSWORD="$password" OCI_VERSION="$version" OCI_RESULTS_DIR="$report" \
        OCI_API_BLOBS_DIGEST_HEADER=true OCI_API_MANIFESTS_DIGEST_HEADER=true OCI_API_BLOBS_UPLOAD_CANCEL=true \
        "$@" "$suite" >"$report.log" 2>&1
}

# nothing FAIL|Error|Skip…: the report has no test with this result.
nothing() { ! grep -E "^ *OCI Conformance Test.*: $1\$" "$report.log"; }

# counted: the line of the report that says how much was run.
counted() { sed -n "/^ *$1\\.*: *[0-9]*\$/{s/.*: *//p;q}" "$report.log"; }

# Left out is what the specification lets a registry refuse, and this one does: manifests of
# content that is not there (OCI_DATA_SPARSE, off in the suite itself).
for version in 1.1 dev; do
    report=$WORK/conformance-$version
    check "conformance $version passes" conformance $version OCI_API_BLOBS_MOUNT_ANONYMOUS=true
    check "  nothing of it failed" nothing FAIL
    check "  nothing of it went wrong" nothing Error
    check "  nothing of it was skipped" nothing Skip
    total=$(counted Total)
    check "  and it ran ($total tests)" test "$total" -ge 850
done
