# Dockerfiles built by docker's BuildKit and by ours must come out the same: configuration,
# history, layers and every file; classic docker and buildah are witnesses. The cases are in compare/*.txt, the rules in compare.py.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"

check "docker signs in" "$PORTOLAN" acr login --name "$REG"
check "docker pulls the base" docker pull "$LOGIN_SERVER/busybox:latest"
docker tag "$LOGIN_SERVER/busybox:latest" busybox:latest
check "buildah signs in" sign_in buildah
check "buildah pulls the base" buildah pull -q --cert-dir "$CERTS" "$LOGIN_SERVER/busybox:latest"
buildah tag "$LOGIN_SERVER/busybox:latest" docker.io/library/busybox:latest
COMPARE_PASSWORD=$("$PORTOLAN" acr credential show --name "$REG" --query 'passwords[0].value' -o tsv)
export COMPARE_PASSWORD
# COMPARE picks cases by name, for example: COMPARE='copy-*' tests/external/run compare
# shellcheck disable=SC2086
set -f
python3 "$(dirname "$0")/compare.py" ${COMPARE:-}
