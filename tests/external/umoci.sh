# umoci: images as layouts on disk, changed there; skopeo carries them.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"

check "skopeo signs in" sign_in skopeo
work=$WORK/umoci
mkdir -p "$work"
layout=$work/layout
check "an image comes out as a layout" \
    skopeo copy --src-cert-dir "$CERTS" "docker://$LOGIN_SERVER/busybox:latest" "oci:$layout:base"
says "umoci lists it" "^base\$" umoci ls --layout "$layout"
says "and knows its layers" "LAYER" umoci stat --image "$layout:base"
check "umoci unpacks it" umoci unpack --image "$layout:base" "$work/bundle"
head -c 100000 /dev/urandom >"$work/bundle/rootfs/payload"
want=$(sha256sum <"$work/bundle/rootfs/payload")
check "umoci makes a layer of a change" umoci repack --image "$layout:changed" "$work/bundle"
check "umoci changes the configuration" umoci config --image "$layout:changed" --config.label made.by=umoci
check "the image is pushed" skopeo copy --dest-cert-dir "$CERTS" "oci:$layout:changed" "docker://$LOGIN_SERVER/umoci/app:v1"
check "the image is pulled again" \
    skopeo copy --src-cert-dir "$CERTS" "docker://$LOGIN_SERVER/umoci/app:v1" "oci:$work/again:v1"
digest_of() { jq -r '.manifests[] | select(.annotations["org.opencontainers.image.ref.name"] == $tag) | .digest' --arg tag "$2" "$1/index.json"; }
equals "under the same digest" "$(digest_of "$layout" changed)" "$(digest_of "$work/again" v1)"
check "umoci unpacks what came back" umoci unpack --image "$work/again:v1" "$work/second"
equals "byte for byte" "$want" "$(sha256sum <"$work/second/rootfs/payload")"
equals "with its label" umoci "$(skopeo inspect --cert-dir "$CERTS" --format '{{index .Labels "made.by"}}' \
    "docker://$LOGIN_SERVER/umoci/app:v1")"
check "an empty image is made" umoci init --layout "$work/new"
check "with no layers at all" umoci new --image "$work/new:empty"
check "and pushed" skopeo copy --dest-cert-dir "$CERTS" "oci:$work/new:empty" "docker://$LOGIN_SERVER/umoci/app:empty"
says "both are listed" '"v1"' skopeo list-tags --cert-dir "$CERTS" "docker://$LOGIN_SERVER/umoci/app"
check "one is deleted" skopeo delete --cert-dir "$CERTS" "docker://$LOGIN_SERVER/umoci/app:v1"
refuses "and gone" "manifest unknown|not found|404" skopeo inspect --cert-dir "$CERTS" "docker://$LOGIN_SERVER/umoci/app:v1"
refuses "a wrong password is refused" "unauthorized|authentication required|invalid username/password" \
    skopeo copy --dest-cert-dir "$CERTS" --dest-creds "$REG:wrong" "oci:$layout:base" "docker://$LOGIN_SERVER/umoci/app:v2"
rm -rf "$work"
