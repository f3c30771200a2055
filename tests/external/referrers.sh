# What is about an image: signatures, attestations and bills of materials, in the forms that
# notation and cosign give them, pushed, discovered, copied and deleted.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"

work=$WORK/referrers
mkdir -p "$work"
password=$(admin_password)
oras_client=$(tool oras)
notation_client=$(tool notation)
export DOCKER_CONFIG=$work
# It takes every registry on localhost for one without TLS, unless told otherwise.
oras() { "$oras_client" "$@" --plain-http=false --ca-file "$CA" --registry-config "$work/auth.json"; }
copy() {
    "$oras_client" copy "$@" --from-plain-http=false --to-plain-http=false --from-ca-file "$CA" --to-ca-file "$CA" \
        --from-registry-config "$work/auth.json" --to-registry-config "$work/auth.json"
}
curl() { command curl -sS --fail-with-body --cacert "$CA" --user "$REG:$password" "$@"; }
api=https://$LOGIN_SERVER/v2
repo=signed/app
there=$LOGIN_SERVER/$repo
printf %s "$password" | oras login "$LOGIN_SERVER" --username "$REG" --password-stdin >/dev/null
copy "$LOGIN_SERVER/busybox:latest" "$there:v1" >/dev/null
image=$(oras resolve "$there:v1")
size=$(oras manifest fetch --descriptor "$there:v1" | jq .size)
image_type=$(oras manifest fetch --descriptor "$there:v1" | jq -r .mediaType)
# referrers [QUERY]: the types of what is about the image, sorted.
referrers() { curl "$api/$repo/referrers/$image${1:-}" | jq -r '[.manifests[].artifactType] | sort | join(" ")'; }
equals "at first nothing is about the image" "" "$(referrers)"

# --- notation itself -------------------------------------------------------------------
# notation asks localhost without TLS and cannot be told otherwise; by number it is any host.
here=127.0.0.1:${LOGIN_SERVER##*:}
notation() {
    SSL_CERT_FILE=$CA XDG_CONFIG_HOME=$work/config HOME=$work NOTATION_USERNAME=$REG \
        NOTATION_PASSWORD=$notation_password "$notation_client" "$@"
}
notation_password=wrong
check "notation makes a key" notation cert generate-test --default tests.example
refuses "notation: a wrong password is refused" "401|unauthorized|authentication" notation sign "$here/$repo@$image"
notation_password=$password
check "notation signs the image" notation sign "$here/$repo@$image"
says "notation lists the signature" "application/vnd.cncf.notary.signature" notation list "$here/$repo@$image"
cat >"$work/config/notation/trustpolicy.json" <<EOT
{"version": "1.0", "trustPolicies": [{"name": "tests", "registryScopes": ["*"],
 "signatureVerification": {"level": "strict"}, "trustStores": ["ca:tests.example"], "trustedIdentities": ["*"]}]}
EOT
says "notation verifies it" "Successfully verified" notation verify "$here/$repo@$image"
equals "it is in the list of referrers" application/vnd.cncf.notary.signature "$(referrers)"
says "with the annotations it was pushed with" '"io.cncf.notary.x509chain.thumbprint#S256"' curl "$api/$repo/referrers/$image"
# It does as with registries that have no list: one under a tag beside it, which is kept too.
equals "and in the index that notation keeps under a tag" application/vnd.cncf.notary.signature \
    "$(curl "$api/$repo/manifests/${image/:/-}" | jq -r '.manifests[].artifactType')"
copy "$there:v1" "$LOGIN_SERVER/signed/api:v1" >/dev/null
check "told of the API, notation signs" notation sign --force-referrers-tag=false "$here/signed/api@$image"
equals "with no such tag" v1 "$(oras repo tags "$LOGIN_SERVER/signed/api")"
says "and verifies" "Successfully verified" notation verify "$here/signed/api@$image"

# --- cosign's shapes -------------------------------------------------------------------
# put REFERENCE TYPE FILE: a manifest as it stands; prints its digest.
put() {
    curl -X PUT -H "Content-Type: $2" --data-binary @"$3" -D "$work/headers" -o "$work/answer" "$api/$repo/manifests/$1" &&
        tr -d '\r' <"$work/headers" | sed -n 's/^docker-content-digest: //p'
}
# blob FILE: pushed in one request; prints its digest.
blob() {
    local digest
    digest=sha256:$(sha256sum <"$1" | cut -d' ' -f1)
    curl -X POST -H 'Content-Type: application/octet-stream' --data-binary @"$1" -o /dev/null \
        "$api/$repo/blobs/uploads/?digest=$digest" && echo "$digest"
}
printf '{"critical":{"identity":{"docker-reference":"%s"},"image":{"docker-manifest-digest":"%s"},"type":"cosign container image signature"},"optional":null}' \
    "$there" "$image" >"$work/payload"
printf '{}' >"$work/empty"
printf '{"architecture":"","created":"0001-01-01T00:00:00Z","history":[{"created":"0001-01-01T00:00:00Z"}],"os":"","rootfs":{"type":"layers","diff_ids":["%s"]},"config":{}}' \
    "sha256:$(sha256sum <"$work/payload" | cut -d' ' -f1)" >"$work/config.json"
payload=$(blob "$work/payload") config=$(blob "$work/config.json") empty=$(blob "$work/empty")
# layered TYPE ANNOTATIONS [MORE]: a manifest of one layer.
layered() {
    jq -cn --arg type "$1" --argjson annotations "$2" --arg payload "$payload" --arg config "$config" \
        --argjson size "$(stat -c %s "$work/payload")" --argjson config_size "$(stat -c %s "$work/config.json")" \
        '{schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json",
          config: {mediaType: "application/vnd.oci.image.config.v1+json", size: $config_size, digest: $config},
          layers: [{mediaType: $type, size: $size, digest: $payload, annotations: $annotations}]}'
}
oci_manifest=application/vnd.oci.image.manifest.v1+json
schema=${image/:/-}
layered application/vnd.dev.cosign.simplesigning.v1+json '{"dev.cosignproject.cosign/signature":"MEUCIQ=="}' >"$work/sig"
layered application/vnd.dsse.envelope.v1+json '{"dev.cosignproject.cosign/signature":"","predicateType":"https://example.com/provenance/v1"}' >"$work/att"
layered text/spdx+json '{}' >"$work/sbom"
for kind in sig att sbom; do
    digest=$(put "$schema.$kind" $oci_manifest "$work/$kind")
    equals "cosign's $schema.$kind is kept" "sha256:$(sha256sum <"$work/$kind" | cut -d' ' -f1)" "$digest"
    check "  and comes back byte for byte" cmp "$work/$kind" <(curl -H "Accept: $oci_manifest" "$api/$repo/manifests/$schema.$kind")
done
equals "which have no subject and are no referrers" application/vnd.cncf.notary.signature "$(referrers)"
# artifact TYPE ANNOTATIONS: about the image, as cosign's OCI 1.1 mode and its bundles have it.
artifact() {
    jq -cn --arg type "$1" --argjson annotations "$2" --arg payload "$payload" --arg empty "$empty" \
        --argjson size "$(stat -c %s "$work/payload")" --arg image "$image" --arg image_type "$image_type" \
        --argjson image_size "$size" \
        '{schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json", artifactType: $type,
          config: {mediaType: "application/vnd.oci.empty.v1+json", size: 2, digest: $empty},
          layers: [{mediaType: $type, size: $size, digest: $payload}],
          subject: {mediaType: $image_type, size: $image_size, digest: $image}, annotations: $annotations}'
}
signature=application/vnd.dev.cosign.artifact.sig.v1+json
bundle=application/vnd.dev.sigstore.bundle.v0.3+json
artifact $signature '{}' >"$work/signature"
artifact $bundle '{"dev.sigstore.bundle.content":"dsse-envelope","dev.sigstore.bundle.predicateType":"https://example.com/provenance/v1","org.opencontainers.image.created":"2026-01-02T03:04:05Z"}' >"$work/bundle"
for kind in signature bundle; do
    digest=sha256:$(sha256sum <"$work/$kind" | cut -d' ' -f1)
    equals "cosign's $kind is pushed by its digest" "$digest" "$(put "$digest" $oci_manifest "$work/$kind")"
    says "  and the answer names its subject" "^oci-subject: $image" tr -d '\r' <"$work/headers"
done
check "an SBOM is attached by oras" oras attach "$there:v1" --artifact-type application/spdx+json \
    --disable-path-validation "$work/empty:application/spdx+json"

all="application/spdx+json application/vnd.cncf.notary.signature $signature $bundle"
equals "all of them are referrers" "$all" "$(referrers)"
for kind in $all; do
    equals "of which there is one $kind" "$kind" "$(referrers "?artifactType=$(jq -rn --arg t "$kind" '$t | @uri')")"
done
says "the bundle with its predicate" '"dev.sigstore.bundle.predicateType": ?"https://example.com/provenance/v1"' \
    curl "$api/$repo/referrers/$image?artifactType=${bundle//+/%2B}"
says "oras discovers them" "vnd.dev.sigstore.bundle" oras discover "$there:v1"
says "and by type" "application/spdx\+json" oras discover --artifact-type application/spdx+json "$there:v1"

# --- copies ----------------------------------------------------------------------------
copied=copied/app
check "oras copies the image with all that is about it" copy --recursive "$there:v1" "$LOGIN_SERVER/$copied:v1"
equals "which is about the copy too" "$all" \
    "$(curl "$api/$copied/referrers/$image" | jq -r '[.manifests[].artifactType] | sort | join(" ")')"
says "notation verifies the copy" "Successfully verified" notation verify "$here/$copied@$image"
skopeo_copy() { skopeo copy --src-cert-dir "$CERTS" --dest-cert-dir "$CERTS" --src-creds "$REG:$password" --dest-creds "$REG:$password" "$@"; }
check "skopeo copies cosign's tags" skopeo_copy "docker://$there:$schema.sig" "docker://$LOGIN_SERVER/$copied:$schema.sig"
check "  byte for byte" cmp "$work/sig" <(curl -H "Accept: $oci_manifest" "$api/$copied/manifests/$schema.sig")

# --- deletes ---------------------------------------------------------------------------
check "a signature is deleted" oras manifest delete --force "$there@sha256:$(sha256sum <"$work/signature" | cut -d' ' -f1)"
equals "and listed no more" "${all/$signature /}" "$(referrers)"
check "the image is deleted" oras manifest delete --force "$there@$image"
equals "and what was about it went with it" "" "$(referrers)"
says "what cosign tagged stays" "$schema.sig" oras repo tags "$there"
rm -rf "$work"
