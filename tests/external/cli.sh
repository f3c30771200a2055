# Our own command line, as a user types it.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"
p() { "$PORTOLAN" "$@"; }

says "help names the commands" "acr" p --help
refuses "a typo gets a suggestion" "build" p acr biuld
says "group show" '"name": "rg-test"' p group show --name $GROUP
says "acr list -o table" "^testreg .*localhost" p acr list -o table
equals "acr show --query -o tsv" "$LOGIN_SERVER" "$(p acr show --name $REG --query loginServer -o tsv)"
says "acr show -o yaml" "^name: testreg" p acr show --name $REG -o yaml
refuses "an unknown registry is a clear error" "nosuchreg" p acr show --name nosuchreg
p acr show --name nosuchreg >/dev/null 2>&1 && code=0 || code=$?
equals "with exit code 3" 3 "$code"
p acr show >/dev/null 2>&1 && code=0 || code=$?
equals "a usage error has exit code 2" 2 "$code"
says "check-name" '"nameAvailable": false' p acr check-name --name $REG
check "create again is idempotent" p acr create --resource-group $GROUP --name $REG --sku Premium --admin-enabled true

ctx=$WORK/clictx
mkdir -p "$ctx/sub"
cat >"$ctx/Dockerfile" <<'D'
FROM busybox AS builder
ARG WHO=nobody
RUN mkdir /out && echo "hello $WHO" >/out/greeting
FROM busybox AS runtime
COPY --from=builder /out/greeting /greeting
COPY . /ctx/
ENTRYPOINT ["cat"]
CMD ["/greeting"]
D
echo kept >"$ctx/sub/kept.txt"
echo dropped >"$ctx/sub/dropped.log"
echo '**/*.log' >"$ctx/.dockerignore"
says "acr build streams the log" "Run ID: .* was successful" p acr build -r $REG -t cliapp:v1 -t cliapp:latest --build-arg WHO=portolan "$ctx"
says "a second build is all cache hits" "CACHED" p acr build -r $REG -t cliapp:v1 --build-arg WHO=portolan "$ctx"
docker login --username $REG --password "$(p acr credential show -n $REG --query 'passwords[0].value' -o tsv)" "$LOGIN_SERVER" >/dev/null 2>&1
equals "the image runs in docker" "hello portolan" "$(docker run --rm --network none "$LOGIN_SERVER/cliapp:v1" 2>/dev/null)"
equals ".dockerignore was honoured" "kept.txt" "$(docker run --rm --network none --entrypoint ls "$LOGIN_SERVER/cliapp:v1" /ctx/sub)"
check "--target stops at a stage" p acr build -r $REG -t cliapp:builder --target builder "$ctx"
check "--no-push pushes nothing" p acr build -r $REG -t cliapp:never --no-push "$ctx"
refuses "and the tag is not there" "not found|TAG_UNKNOWN|does not exist" p acr repository show -n $REG -t cliapp:never
printf 'FROM busybox\nRUN echo before && exit 7\n' >"$ctx/Fail"
refuses "a failing step fails the command" "exit code: 7" p acr build -r $REG -t cliapp:fail -f "$ctx/Fail" "$ctx"
printf 'FROM busybox\n\nCOPPY a b\n' >"$ctx/Typo"
refuses "a syntax error names file, line and hint" "Typo:3.*" p acr build -r $REG -t cliapp:typo -f "$ctx/Typo" "$ctx"
printf 'FROM busybox\nRUN sleep 600\n' >"$ctx/Slow"
refuses "--timeout ends a build" "timed out|timeout" p acr build -r $REG -t cliapp:slow -f "$ctx/Slow" --timeout 2 "$ctx"
refuses "a missing Dockerfile is told" "Dockerfile|No such file|not found" p acr build -r $REG -t x:1 -f "$ctx/Nope" "$ctx"
refuses "a bad image name is told" "invalid|tag|name" p acr build -r $REG -t 'Bad Name' "$ctx"

says "repository list" "cliapp" p acr repository list -n $REG -o tsv
says "show-tags --detail" "sha256:" p acr repository show-tags -n $REG --repository cliapp --detail
says "show --query digest" "^sha256:" p acr repository show -n $REG -t cliapp:v1 --query digest -o tsv
says "show-manifests" "sha256:" p acr repository show-manifests -n $REG --repository cliapp -o tsv
says "task list-runs" "Succeeded" p acr task list-runs -r $REG -o table
says "task logs of the newest run" "Run ID" p acr task logs -r $REG
check "untag" p acr repository untag -n $REG -t cliapp:latest
check "delete by tag" p acr repository delete -n $REG -t cliapp:builder --yes
check "our own pull" p acr pull "$LOGIN_SERVER/cliapp:v1" --to "$WORK/cli-layout"
check "makes an OCI layout that skopeo reads" skopeo inspect "oci:$WORK/cli-layout:v1"
check "delete by repository" p acr repository delete -n $REG --repository cliapp --yes
check "acr update" p acr update -n $REG --admin-enabled true
check "credential renew" p acr credential renew -n $REG --password-name password2
