# Images for several platforms: one index, real programs of another processor, and a host
# that stays as it was.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"

[ "$(uname -m)" = x86_64 ] || { echo "these checks are written for amd64"; exit 0; }
here=$WORK/platforms
mkdir -p "$here/base" "$here/app" "$here/cross"
arm=$BASES/busybox-arm64
if [ ! -e "$arm/Dockerfile" ]; then
    rm -rf "$arm.tmp"
    "$(dirname "$0")/../../scripts/base-image" busybox-arm64 "$arm.tmp" >"$here/base.log" 2>&1 ||
        fail "a base for ARM can be had" "$(tail "$here/base.log")"
    mv "$arm.tmp" "$arm"
fi
table() { ls /proc/sys/fs/binfmt_misc 2>/dev/null | sort; }
before=$(table)

cp "$BASES/busybox/rootfs.tar" "$here/base/amd64.tar"
cp "$arm/rootfs.tar" "$here/base/arm64.tar"
printf 'FROM scratch\nARG TARGETARCH\nADD $TARGETARCH.tar /\nCMD ["sh"]\n' >"$here/base/Dockerfile"
both=linux/amd64,linux/arm64
out=$("$PORTOLAN" acr build -r $REG -t multi:1 --platform $both "$here/base" 2>&1) || fail "a base for two platforms builds" "$out"
says "each step names its platform" "\[linux/arm64 1/1\] ADD" printf '%s' "$out"
index=$("$PORTOLAN" acr manifest show "$LOGIN_SERVER/multi:1" --raw -o json)
equals "the tag is an index over both" "amd64 arm64 " "$(jq -r '.manifests[].platform.architecture' <<<"$index" | tr '\n' ' ')"

cat >"$here/app/Dockerfile" <<'D'
FROM multi:1
RUN uname -m | tee /arch
RUN for i in 1 2 3 4 5 6 7 8 9 10; do /bin/busybox true || exit 1; done; echo "$(busybox sh -c 'echo nested') $(id -u)"
CMD ["cat", "/arch"]
D
sed -i "s|^FROM multi|FROM $LOGIN_SERVER/multi|" "$here/app/Dockerfile"
out=$("$PORTOLAN" acr build -r $REG -t app:both --platform $both "$here/app" 2>&1) || fail "programs of both processors run" "$out"
says "one says x86_64" "[0-9.]+ x86_64" printf '%s' "$out"
says "the other aarch64" "[0-9.]+ aarch64" printf '%s' "$out"
equals "and programs start programs, as root" 2 "$(grep -Ec '[0-9.]+ nested 0' <<<"$out")"
equals "nothing is registered with the host" "$before" "$(table)"

password=$("$PORTOLAN" acr credential show -n $REG --query 'passwords[0].value' -o tsv)
check "docker signs in" docker login --username $REG --password "$password" "$LOGIN_SERVER"
for arch in amd64:x86_64 arm64:aarch64; do
    check "docker pulls the image for ${arch%:*}" docker pull -q --platform "linux/${arch%:*}" "$LOGIN_SERVER/app:both"
    equals "and it is for that" "${arch%:*}" "$(docker image inspect -f '{{.Architecture}}' "$LOGIN_SERVER/app:both")"
    id=$(docker create --platform "linux/${arch%:*}" "$LOGIN_SERVER/app:both" 2>/dev/null)
    equals "its step ran there" "${arch#*:}" "$(docker cp "$id:/arch" - | tar -xO)"
    docker rm "$id" >/dev/null
done

cat >"$here/cross/Dockerfile" <<D
FROM --platform=\$BUILDPLATFORM $LOGIN_SERVER/multi:1 AS build
RUN echo "compiler on \$(uname -m)" | tee /out
ARG TARGETARCH
RUN echo "for \$TARGETARCH" >>/out
FROM scratch
COPY --from=build /out /
D
out=$("$PORTOLAN" acr build -r $REG -t cross:1 --platform $both "$here/cross" 2>&1) || fail "a cross build builds" "$out"
equals "what is the same for both is done once, natively" 1 "$(grep -Ec '[0-9.]+ compiler on x86_64' <<<"$out")"
says "a step says what it makes things for" '\[linux/amd64->arm64 build 3/3\]' printf '%s' "$out"

out=$("$PORTOLAN" acr build -r $REG -t app:both --platform $both "$here/app" 2>&1) || fail "again" "$out"
equals "the second time nothing runs" 0 "$(grep -Ec '[0-9.]+ (x86_64|aarch64)' <<<"$out")"

printf 'FROM %s/multi:1\nRUN exit 7\n' "$LOGIN_SERVER" >"$here/app/Dockerfile"
if out=$("$PORTOLAN" acr build -r $REG -t app:none --platform $both "$here/app" 2>&1); then fail "a failing step fails both" "$out"; else ok "a failing step fails both"; fi
refuses "and nothing is stored" "not found|MANIFEST_UNKNOWN|TAG_UNKNOWN" "$PORTOLAN" acr manifest show "$LOGIN_SERVER/app:none"
eventually "no mount is left behind" 10 sh -c '! grep -q binfmt_misc /proc/mounts || [ -n "'"$before"'" ]'
