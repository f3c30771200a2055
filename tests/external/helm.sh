# helm: charts as OCI artifacts.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"

client=$(tool helm)
work=$WORK/helm
mkdir -p "$work/pulled"
export HELM_CACHE_HOME=$work/cache HELM_CONFIG_HOME=$work/config HELM_DATA_HOME=$work/data
export HELM_REGISTRY_CONFIG=$work/auth.json
# Where helm looks besides: docker's own tests have signed in there.
export DOCKER_CONFIG=$work/docker
helm() { "$client" "$@"; }
password=$(admin_password)
charts=oci://$LOGIN_SERVER/charts
login_with() { printf %s "$1" | helm registry login "$LOGIN_SERVER" --ca-file "$CA" --username "$REG" --password-stdin; }

cd "$work"
check "helm makes a chart" helm create demo
for version in 0.1.0 0.2.0 1.0.0+build.7; do
    check "helm packages it as $version" helm package demo --version "$version"
done
refuses "a wrong password is refused" "unauthorized|401|denied" login_with wrong
refuses "without signing in nothing is pushed" "unauthorized|401|denied" helm push demo-0.1.0.tgz "$charts" --ca-file "$CA"
says "helm signs in" "Login Succeeded" login_with "$password"
for version in 0.1.0 0.2.0 1.0.0+build.7; do
    # helm writes `+`, which no tag may have, as `_`.
    says "helm pushes $version" "Digest: sha256:" helm push "demo-$version.tgz" "$charts" --ca-file "$CA"
done
says "helm shows a chart" "^name: demo" helm show chart "$charts/demo" --version 0.1.0 --ca-file "$CA"
says "helm finds the newest by the list of tags" "^version: 0.2.0" helm show chart "$charts/demo" --version '<1' --ca-file "$CA"
says "and of all" "^version: 1.0.0\+build.7" helm show chart "$charts/demo" --ca-file "$CA"
check "helm pulls" helm pull "$charts/demo" --version 0.1.0 --ca-file "$CA" --destination pulled
check "byte for byte" cmp demo-0.1.0.tgz pulled/demo-0.1.0.tgz
says "helm renders what it pulls" "kind: Deployment" helm template "$charts/demo" --version 0.2.0 --ca-file "$CA"
says "the chart is in the list of tags" '"1.0.0_build.7"' \
    skopeo list-tags --cert-dir "$CERTS" --creds "$REG:$password" "docker://$LOGIN_SERVER/charts/demo"
says "with helm's media type" "application/vnd.cncf.helm.config.v1\+json" \
    skopeo inspect --raw --cert-dir "$CERTS" --creds "$REG:$password" "docker://$LOGIN_SERVER/charts/demo:0.1.0"
check "a version is deleted" skopeo delete --cert-dir "$CERTS" --creds "$REG:$password" "docker://$LOGIN_SERVER/charts/demo:0.1.0"
refuses "and helm does not find it" "not found|404|no matching" helm pull "$charts/demo" --version 0.1.0 --ca-file "$CA"
check "helm signs out" helm registry logout "$LOGIN_SERVER"
cd "$OLDPWD"
rm -rf "$work"
