# docker: sign in, push, pull, run, mount across repositories, big layers.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"

refuses "a wrong password is refused" "unauthorized|denied" \
    sh -c "echo wrong | docker login --username $REG --password-stdin $LOGIN_SERVER"
password=$("$PORTOLAN" acr credential show --name "$REG" --query 'passwords[0].value' -o tsv)
says "the admin user signs in" "Login Succeeded" \
    sh -c "printf %s '$password' | docker login --username $REG --password-stdin $LOGIN_SERVER"
docker logout "$LOGIN_SERVER" >/dev/null
refuses "without signing in nothing is pulled" "unauthorized|authentication|denied" docker pull "$LOGIN_SERVER/busybox:latest"
says "portolan acr login signs docker in" "Login Succeeded" "$PORTOLAN" acr login --name "$REG"
check "docker pulls what our builder made" docker pull "$LOGIN_SERVER/busybox:latest"
says "and runs it" "^hello$" docker run --rm --network none "$LOGIN_SERVER/busybox:latest" echo hello

docker tag "$LOGIN_SERVER/busybox:latest" "$LOGIN_SERVER/team/app:v1"
says "docker pushes to a second repository (mounting the layers)" "digest: sha256:" docker push "$LOGIN_SERVER/team/app:v1"

mkdir -p "$WORK/big"
head -c 300000000 /dev/urandom >"$WORK/big/blob"
printf 'FROM %s/busybox:latest\nCOPY blob /blob\n' "$LOGIN_SERVER" >"$WORK/big/Dockerfile"
check "docker builds an image with a 300 MB layer" docker build -q -t "$LOGIN_SERVER/big:v1" "$WORK/big"
says "and pushes it" "digest: sha256:" docker push "$LOGIN_SERVER/big:v1"
want=$(sha256sum <"$WORK/big/blob")
docker rmi -f "$LOGIN_SERVER/big:v1" >/dev/null
docker builder prune -af >/dev/null 2>&1 || true
docker image prune -af >/dev/null 2>&1 || true
check "and pulls it again" docker pull "$LOGIN_SERVER/big:v1"
equals "byte for byte" "$want" "$(docker run --rm --network none "$LOGIN_SERVER/big:v1" cat /blob | sha256sum)"
rm -rf "$WORK/big"
docker rmi -f "$LOGIN_SERVER/big:v1" >/dev/null
