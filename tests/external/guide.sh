# The guide's chapters on building and managing images, line by line: once with our CLI
# under the name az, once with the real one.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/az-lib.sh"

guide() { # guide LABEL: every line through the function az
    local who=$1 R=$REG n out
    check "$who: build with several tags" az acr build --registry "$R" \
        --image flask-echo:v1.0.0 --image flask-echo:latest --image flask-echo:stable examples/flask-echo
    equals "$who: all of them are there" "latest stable v1.0.0" \
        "$(az acr repository show-tags --name "$R" --repository flask-echo -o tsv | sort | xargs)"
    check "$who: build with arguments" az acr build --registry "$R" --image flask-echo:v2.0.0 \
        --build-arg APP_VERSION=2.0.0 --build-arg APP_ENV=production examples/flask-echo
    says "$who: an argument got into the image" '"APP_VERSION=2.0.0"' skopeo inspect --cert-dir "$CERTS" --config "docker://$LOGIN_SERVER/flask-echo:v2.0.0"
    check "$who: build for a platform" az acr build --registry "$R" --image flask-echo:amd64 --platform linux/amd64 examples/flask-echo
    check "$who: the run's id as a tag" az acr build --registry "$R" --image 'flask-echo:{{.Run.ID}}' examples/flask-echo
    run=$(az acr task list-runs --registry "$R" --top 1 --query '[0].runId' -o tsv)
    check "$who: is there under that tag" az acr repository show --name "$R" --image "flask-echo:$run"

    az acr build --registry "$R" --image flask-echo:par examples/flask-echo >"$WORK/par1" 2>&1 &
    local first=$!
    az acr build --registry "$R" --image fastapi-echo:par examples/fastapi-echo >"$WORK/par2" 2>&1 &
    local second=$!
    wait $first || fail "$who: two builds at once" "$(cat "$WORK/par1")"
    wait $second || fail "$who: two builds at once" "$(cat "$WORK/par2")"
    ok "$who: two builds at once"

    says "$who: list as a table" "fastapi-echo" az acr repository list --name "$R" --output table
    says "$who: tags with metadata" "sha256" az acr repository show-tags --name "$R" --repository flask-echo --detail --output table
    check "$who: newest first" az acr repository show-tags --name "$R" --repository flask-echo --orderby time_desc --output table
    says "$who: the digest of an image" "^sha256:[0-9a-f]{64}$" \
        az acr repository show --name "$R" --image flask-echo:latest --query digest --output tsv

    # Retag, so that a manifest loses its only tag, and delete what is untagged.
    printf 'FROM busybox\nRUN echo %s-one >/which\n' "$who" >"$WORK/guide.Dockerfile"
    mkdir -p "$WORK/guide-empty"
    az acr build --registry "$R" --image guide:moving --file "$WORK/guide.Dockerfile" "$WORK/guide-empty" >/dev/null 2>&1
    printf 'FROM busybox\nRUN echo %s-two >/which\n' "$who" >"$WORK/guide.Dockerfile"
    az acr build --registry "$R" --image guide:moving --file "$WORK/guide.Dockerfile" "$WORK/guide-empty" >/dev/null 2>&1
    n=$(az acr repository show-manifests --name "$R" --repository guide --query "[?tags[0]==null].digest" --output tsv | wc -l)
    equals "$who: a retag leaves one manifest untagged" 1 "$n"
    out=$(az acr repository show-manifests --name "$R" --repository guide --query "[?tags[0]==null].digest" --output tsv)
    for digest in $out; do
        check "$who: delete the untagged manifest" az acr repository delete --name "$R" --image "guide@$digest" --yes
    done
    equals "$who: the tagged one stays" moving "$(az acr repository show-tags --name "$R" --repository guide -o tsv)"
    check "$who: delete a tag's image" az acr repository delete --name "$R" --image flask-echo:v2.0.0 --yes
    for repo in guide flask-echo fastapi-echo; do
        check "$who: delete the repository $repo" az acr repository delete --name "$R" --repository $repo --yes
    done
}

sign_in skopeo >/dev/null
az() { "$PORTOLAN" "$@"; }
guide portolan
real_az
guide az
