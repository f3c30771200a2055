# podman, buildah and skopeo: push, pull, run, build, inspect, list, delete.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"

check "podman signs in" sign_in podman
check "podman pulls what our builder made" podman pull --cert-dir "$CERTS" "$LOGIN_SERVER/busybox:latest"
says "and runs it" "^hello$" podman --runtime runc run --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 --rm --network none "$LOGIN_SERVER/busybox:latest" echo hello
podman tag "$LOGIN_SERVER/busybox:latest" "$LOGIN_SERVER/podman/app:v1"
check "podman pushes in Docker's format" podman push --cert-dir "$CERTS" --format docker "$LOGIN_SERVER/podman/app:v1"
check "podman pushes in OCI's format" podman push --cert-dir "$CERTS" --format oci "$LOGIN_SERVER/podman/app:v1" "$LOGIN_SERVER/podman/app:oci"
says "podman lists the tags" "podman/app +oci" podman search --tls-verify=false --list-tags "$LOGIN_SERVER/podman/app"

check "buildah signs in" sign_in buildah
mkdir -p "$WORK/buildah"
printf 'FROM %s/busybox:latest\nRUN echo built >/built\n' "$LOGIN_SERVER" >"$WORK/buildah/Dockerfile"
check "buildah builds on our image" buildah bud --cert-dir "$CERTS" --network host -t "$LOGIN_SERVER/buildah/app:v1" "$WORK/buildah"
check "buildah pushes" buildah push --cert-dir "$CERTS" "$LOGIN_SERVER/buildah/app:v1"

check "skopeo signs in" sign_in skopeo
says "skopeo inspects" '"Digest": "sha256:' skopeo inspect --cert-dir "$CERTS" "docker://$LOGIN_SERVER/buildah/app:v1"
says "skopeo lists tags" '"oci"' skopeo list-tags --cert-dir "$CERTS" "docker://$LOGIN_SERVER/podman/app"
check "skopeo copies out to an OCI layout" \
    skopeo copy --src-cert-dir "$CERTS" "docker://$LOGIN_SERVER/buildah/app:v1" "oci:$WORK/layout:v1"
check "skopeo copies back in" skopeo copy --dest-cert-dir "$CERTS" "oci:$WORK/layout:v1" "docker://$LOGIN_SERVER/skopeo/app:v1"
check "skopeo copies inside the registry" skopeo copy --src-cert-dir "$CERTS" --dest-cert-dir "$CERTS" \
    "docker://$LOGIN_SERVER/skopeo/app:v1" "docker://$LOGIN_SERVER/skopeo/other:v1"
check "skopeo deletes" skopeo delete --cert-dir "$CERTS" "docker://$LOGIN_SERVER/skopeo/app:v1"
refuses "what was deleted is gone" "manifest unknown|name unknown|not found|404" \
    skopeo inspect --cert-dir "$CERTS" "docker://$LOGIN_SERVER/skopeo/app:v1"
check "and the copy is still there" skopeo inspect --cert-dir "$CERTS" "docker://$LOGIN_SERVER/skopeo/other:v1"
