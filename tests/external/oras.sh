# oras: files as artifacts. The Python client, and the command line.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"

work=$WORK/oras
mkdir -p "$work/in" "$work/out"
head -c 300000 /dev/urandom >"$work/in/model.bin"
printf '{"a": 1}\n' >"$work/in/settings.json"
password=$(admin_password)

# --- the Python client -----------------------------------------------------------------
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check oras==0.2.40
cat >"$work/client.py" <<'EOT'
"""oras.py ACTION: what a program does with the oras package."""
import os, pathlib, sys
import oras.client

host, user, work = os.environ["LOGIN_SERVER"], os.environ["REG"], pathlib.Path(os.environ["ORAS_WORK"])
target = f"{host}/oras/python:v1"
# Its token backend keeps the first token it was given, for pulling; this is what its
# documentation has for registries like this one.
client = oras.client.OrasClient(hostname=host, auth_backend="basic")
client.login(hostname=host, username=user, password=os.environ["ORAS_PASSWORD"])
action = sys.argv[1]
if action == "push":
    os.chdir(work / "in")
    answer = client.push(target=target, files=["model.bin", "settings.json"],
                         manifest_annotations={"org.example.kind": "model"})
    print(answer.status_code)
elif action == "pull":
    for path in client.pull(target=target, outdir=str(work / "out")):
        print(path)
elif action == "tags":
    print(client.get_tags(f"{host}/oras/python"))
elif action == "delete":
    print(client.delete_tags(f"{host}/oras/python", ["v1"]))
EOT
python_client() {
    ORAS_WORK=$work ORAS_PASSWORD=${2-$password} REQUESTS_CA_BUNDLE=$CA HOME=$work/home "$work/venv/bin/python" "$work/client.py" "$1"
}
mkdir -p "$work/home"
refuses "oras (Python): a wrong password is refused" "/v2/oras/python/tags/list: Unauthorized" python_client tags wrong
says "oras (Python) pushes" "^20[01]$" python_client push
says "oras (Python) lists" "'v1'" python_client tags
check "oras (Python) pulls" python_client pull
check "oras (Python): byte for byte" diff -r "$work/in" "$work/out"
says "oras (Python) deletes" "v1" python_client delete
refuses "oras (Python): and with its only tag the repository is gone" "tags/list: Not Found" python_client tags

# --- the command line ------------------------------------------------------------------
client=$(tool oras)
# It takes every registry on localhost for one without TLS, unless told otherwise.
oras() { "$client" "$@" --plain-http=false --ca-file "$CA" --registry-config "$work/auth.json"; }
there=$LOGIN_SERVER/oras/files
login_with() { printf %s "$1" | oras login "$LOGIN_SERVER" --username "$REG" --password-stdin; }
refuses "oras: a wrong password is refused" "unauthorized|401|invalid" login_with wrong
check "oras signs in" login_with "$password"
cd "$work/in"
check "oras pushes files" oras push "$there:v1" --artifact-type application/vnd.example.model \
    model.bin:application/octet-stream settings.json:application/json --annotation org.example.kind=model
says "oras lists tags" "^v1$" oras repo tags "$there"
says "oras lists repositories" "^oras/files$" oras repo ls "$LOGIN_SERVER"
rm -rf "$work/out"
check "oras pulls" oras pull "$there:v1" --output "$work/out"
check "byte for byte" diff -r "$work/in" "$work/out"
says "oras shows the manifest" '"artifactType": *"application/vnd.example.model"' oras manifest fetch --pretty "$there:v1"
digest=$(oras resolve "$there:v1")
says "oras tags" "Tagged" oras tag "$there:v1" stable v1.0
equals "under one digest" "$digest" "$(oras resolve "$there:stable")"
blob=sha256:$(sha256sum <model.bin | cut -d' ' -f1)
says "oras finds a blob" '"size":300000' oras blob fetch --descriptor "$there@$blob"
check "oras fetches it" oras blob fetch --output "$work/fetched" "$there@$blob"
check "byte for byte" cmp model.bin "$work/fetched"
check "oras pushes a blob" oras blob push "$there" settings.json
check "oras attaches" oras attach "$there:v1" --artifact-type application/vnd.example.note settings.json:application/json
says "oras discovers" "application/vnd.example.note" oras discover "$there:v1"
copy() {
    "$client" copy "$@" --from-plain-http=false --to-plain-http=false --from-ca-file "$CA" --to-ca-file "$CA" \
        --from-registry-config "$work/auth.json" --to-registry-config "$work/auth.json"
}
check "oras copies with what is about it (mounting the blobs)" copy --recursive "$there:v1" "$LOGIN_SERVER/oras/copy:v1"
says "which is then there too" "application/vnd.example.note" oras discover "$LOGIN_SERVER/oras/copy:v1"
check "oras deletes a manifest" oras manifest delete --force "$there:v1"
refuses "and what it tagged is gone" "not found" oras resolve "$there:stable"
check "and the copy is not" oras resolve "$LOGIN_SERVER/oras/copy:v1"
cd "$OLDPWD"
rm -rf "$work"
