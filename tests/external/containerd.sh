# containerd: by its own client, and through the CRI as a kubelet asks it.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"

home=$WORK/containerd
mkdir -p "$home/certs.d/$LOGIN_SERVER"
cat >"$home/certs.d/$LOGIN_SERVER/hosts.toml" <<EOT
server = "https://$LOGIN_SERVER"

[host."https://$LOGIN_SERVER"]
  ca = "$CA"
EOT
cat >"$home/config.toml" <<EOT
version = 2
root = "$home/root"
state = "$home/state"

[grpc]
  address = "$home/containerd.sock"

[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "$home/certs.d"
EOT
containerd --config "$home/config.toml" >"$home/log" 2>&1 &
pid=$!
trap 'kill $pid 2>/dev/null; wait $pid 2>/dev/null || true' EXIT
ctr() { command ctr --address "$home/containerd.sock" --namespace tests "$@"; }
eventually "containerd starts" 30 ctr version

password=$(admin_password)
hosts=(--hosts-dir "$home/certs.d")
busybox=$LOGIN_SERVER/busybox:latest
refuses "ctr: a wrong password is refused" "401|unauthorized|authorization failed" \
    ctr images pull "${hosts[@]}" --user "$REG:wrong" "$busybox"
refuses "ctr: without one nothing is pulled" "401|unauthorized|authorization failed" ctr images pull "${hosts[@]}" "$busybox"
check "ctr pulls" ctr images pull "${hosts[@]}" --user "$REG:$password" "$busybox"
says "and lists it" "^$busybox " ctr images ls
digest=$(ctr images ls "name==$busybox" | awk 'NR == 2 {print $3}')
equals "under the registry's digest" "$(skopeo inspect --cert-dir "$CERTS" --creds "$REG:$password" \
    --format '{{.Digest}}' "docker://$busybox")" "$digest"
check "ctr tags" ctr images tag "$busybox" "$LOGIN_SERVER/ctr/app:v1"
check "ctr pushes" ctr images push "${hosts[@]}" --user "$REG:$password" "$LOGIN_SERVER/ctr/app:v1"
refuses "but not with a wrong password" "401|unauthorized|authorization failed" \
    ctr images push "${hosts[@]}" --user "$REG:wrong" "$LOGIN_SERVER/ctr/app:v2" "$busybox"
ctr images export "$WORK/ctr-before.tar" "$busybox"
ctr images rm --sync "$busybox" "$LOGIN_SERVER/ctr/app:v1" >/dev/null
check "ctr pulls by digest what it pushed" \
    ctr images pull "${hosts[@]}" --user "$REG:$password" "$LOGIN_SERVER/ctr/app@$digest"
ctr images export "$WORK/ctr-after.tar" "$LOGIN_SERVER/ctr/app@$digest"
blobs() { tar -xOf "$1" --wildcards 'blobs/sha256/*' | sha256sum; }
equals "byte for byte" "$(blobs "$WORK/ctr-before.tar")" "$(blobs "$WORK/ctr-after.tar")"
check "ctr deletes its copy" ctr images rm --sync "$LOGIN_SERVER/ctr/app@$digest"
refuses "which is gone" "not found" ctr images export "$WORK/ctr-gone.tar" "$LOGIN_SERVER/ctr/app@$digest"

# --- the CRI: what a kubelet does with an image and its pull secret ---------------------
client=$(tool cri)
cri() { "$client" "$home/containerd.sock" "$@"; }
with_password() { printf '%s\n' "$1" | cri pull "$busybox" "$REG"; }
eventually "the CRI answers" 30 cri version
refuses "CRI: a wrong pull secret is refused" "401|unauthorized|authorization failed" with_password wrong
refuses "CRI: without one nothing is pulled" "401|unauthorized|authorization failed" cri pull "$busybox"
check "CRI: an image is pulled with its secret" with_password "$password"
says "CRI: it is listed with tag and digest" "^sha256:[0-9a-f]{64} $busybox ${LOGIN_SERVER//./\\.}/busybox@$digest\$" cri images
says "CRI: it has a status" "^sha256:" cri status "$busybox"
check "CRI: it is removed" cri remove "$busybox"
equals "CRI: and gone" "" "$(cri status "$busybox")"
rm -f "$WORK"/ctr-*.tar
