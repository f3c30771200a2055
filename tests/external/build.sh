# Builds as people and scripts order them: every form of `az acr build`, docker's flags by our
# own command line, live logs, cancelling, exit codes.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/az-lib.sh"
p() { "$PORTOLAN" "$@"; }
real_az

ctx=$WORK/buildctx
mkdir -p "$ctx/sub" "$WORK/lib"
cat >"$ctx/Dockerfile" <<'D'
FROM busybox AS builder
ARG WHO=nobody
RUN mkdir /out && echo "hello $WHO" >/out/greeting && cat /out/greeting
FROM busybox AS runtime
COPY --from=builder /out/greeting /greeting
COPY sub /sub
D
echo kept >"$ctx/sub/kept"
printf 'FROM busybox\nRUN echo before && exit 7\n' >"$ctx/Fail"
printf 'FROM busybox\nRUN echo asleep && sleep 600\n' >"$ctx/Slow"
# az stops watching after as many silent seconds as --timeout says, so this one is never silent.
printf 'FROM busybox\nRUN while echo tick; do sleep 0.2; done\n' >"$ctx/Ticks"
printf 'FROM busybox\nARG TOKEN\nRUN echo "it is ${TOKEN:-empty}, length ${#TOKEN}"\n' >"$ctx/Secret"

# code CMD…: its exit code.
code() { "$@" >/dev/null 2>&1 && echo 0 || echo $?; }
# newest: the run that was ordered last.
newest() { p acr task list-runs -r "$REG" --top 1 --query '[0].runId' -o tsv; }
status() { p acr task show-run -r "$REG" --run-id "$1" --query status -o tsv; }
is() { [ "$(status "$1")" = "$2" ]; }

# --- az's own forms -----------------------------------------------------------------------
azb() { az acr build --registry "$REG" "$@"; }
out=$(azb -t 'sample/hello-world:{{.Run.ID}}' "$ctx" 2>&1) || fail "az acr build -t {{.Run.ID}}" "$out"
run=$(newest)
equals "az: the tag is the run's" "$run" "$(p acr repository show-tags -n "$REG" --repository sample/hello-world -o tsv)"
says "az: the log has docker's steps" '^#[0-9]+ \[builder 2/2\] RUN mkdir /out' printf '%s' "$out"
says "az: with output and its time" '^#[0-9]+ [0-9]+\.[0-9]{3} hello nobody' printf '%s' "$out"
says "az: and how long each took" '^#[0-9]+ DONE [0-9.]+s' printf '%s' "$out"
says "az: a second build says what was done before" '^#[0-9]+ CACHED' azb -t again:v1 "$ctx"
says "az: --no-logs shows the run" '"status": "Succeeded"' azb -t nologs:v1 --no-logs "$ctx"
says "az: --no-format" "was successful" azb -t noformat:v1 --no-format "$ctx"
says "az: --no-push stores nothing" "was successful" azb -t never:v1 --no-push "$ctx"
refuses "az: and the tag is not there" "not found|does not exist|could not be found" az acr repository show -n "$REG" --image never:v1
check "az: without -t" azb "$ctx"
check "az: several tags" azb -t many:v1 -t many:latest -t many:stable "$ctx"
equals "az: all of them are there" "latest stable v1" "$(p acr repository show-tags -n "$REG" --repository many -o tsv | sort | xargs)"
says "az: --build-arg" "hello az" azb -t args:v1 --build-arg WHO=az "$ctx"
says "az: --build-arg from the environment" "hello env" env WHO=env "$AZ_VENV/bin/az" acr build -r "$REG" -t args:v2 --build-arg WHO "$ctx"
out=$(azb -t secret:v1 --file "$ctx/Secret" --secret-build-arg TOKEN=swordfish "$ctx" 2>&1) || fail "az: --secret-build-arg" "$out"
says "az: a secret argument reaches its step" 'length 9' printf '%s' "$out"
says "az: and not the log" 'it is \*\*\*' printf '%s' "$out"
run=$(newest)
out=$(az acr task show-run -r "$REG" --run-id "$run" 2>&1; az acr task list-runs -r "$REG" 2>&1; az acr task logs -r "$REG" --run-id "$run" 2>&1)
equals "az: nor any answer" 0 "$(grep -c swordfish <<<"$out")"
says "az: --file in a folder of its own" "was successful" azb -t file:v1 --file "$ctx/Dockerfile" "$ctx"
out=$(azb -t target:v1 --target builder "$ctx" 2>&1) || fail "az: --target" "$out"
equals "az: --target leaves the rest out" 0 "$(grep -c 'COPY sub' <<<"$out")"
for platform in linux Linux linux/amd64; do
    check "az: --platform $platform" azb -t "platform:v1" --platform $platform "$ctx"
done
refuses "az: --platform windows is refused with the reason" "windows" azb -t x:1 --platform windows "$ctx"
check "az: --auth-mode Default" azb -t auth:v1 --auth-mode Default "$ctx"
check "az: --source-acr-auth-id [caller]" azb -t auth:v2 --source-acr-auth-id '[caller]' "$ctx"
check "az: --log-template" azb -t logged:v1 --log-template 'logs/run:{{.Run.ID}}' "$ctx"
refuses "az: --agent-pool is refused with the reason" "agent pool" azb -t x:1 --agent-pool pool1 "$ctx"
refuses "az: a failing step fails the command" "exit code: 7" azb -t fail:v1 --file "$ctx/Fail" "$ctx"
check "az: with an exit code" test "$(code azb -t fail:v1 --file "$ctx/Fail" "$ctx")" != 0
refuses "az: a Dockerfile that is not there" "Unable to find|Nope" azb -t x:1 --file Nope "$ctx"
refuses "az: --timeout" "timed out" azb -t slow:v1 --file "$ctx/Ticks" --timeout 3 "$ctx"
equals "az: and the run says so" Timeout "$(status "$(newest)")"

# --- a run that goes on: list, show, logs, cancel --------------------------------------------
check "az: --no-wait comes back at once" azb -t slow:v2 --file "$ctx/Slow" --no-wait "$ctx"
run=$(newest)
eventually "the run is under way" 30 is "$run" Running
says "az: show-run" '"status": "Running"' az acr task show-run -r "$REG" --run-id "$run"
says "az: list-runs --run-status" "$run" az acr task list-runs -r "$REG" --run-status Running -o table
p acr task logs -r "$REG" --run-id "$run" >"$WORK/follow.log" 2>&1 &
follower=$!
eventually "its log is seen while it goes on" 30 grep -q asleep "$WORK/follow.log"
check "az: cancel-run" az acr task cancel-run -r "$REG" --run-id "$run"
eventually "and it is cancelled within two seconds" 2 is "$run" Canceled
check "who follows its log comes to the end" wait $follower
says "which says so" "Run ID: $run was canceled" cat "$WORK/follow.log"
equals "nothing of the step is left" 0 "$(pgrep -fc 'sleep 600' || true)"
az acr task logs -r "$REG" --run-id "$run" 2>/dev/null | tr -d '\r' | sed '/^$/d' >"$WORK/az.log"
p acr task logs -r "$REG" --run-id "$run" 2>/dev/null | sed '/^$/d' >"$WORK/our.log"
equals "az and our command line show the same log" "$(cat "$WORK/our.log")" "$(cat "$WORK/az.log")"
sed '/^$/d' "$WORK/follow.log" | grep -v '^Showing' >"$WORK/live.log"
equals "and it is what was seen live" "$(cat "$WORK/our.log")" "$(cat "$WORK/live.log")"

# --- docker's flags ------------------------------------------------------------------------
b() { p acr build -r "$REG" "$@"; }
printf 'FROM busybox\nRUN --mount=type=secret,id=file wc -c </run/secrets/file\nRUN --mount=type=secret,id=var,env=VAR echo "env of ${#VAR}"\n' >"$ctx/Secrets"
printf 12345 >"$WORK/secret.txt"
says "--secret src and env" "env of 6" env VALUE=secret "$PORTOLAN" acr build -r "$REG" -t s:1 -f "$ctx/Secrets" --secret "id=file,src=$WORK/secret.txt" --secret id=var,env=VALUE --no-cache "$ctx"
refuses "a secret that is not there is told, without its place in the order" "cannot read" b -t s:1 --secret id=x,src=/does/not/exist "$ctx"
refuses "what is no part of a secret is not repeated" "none of id, src and env" b -t s:1 --secret id=x,hunter2=1 "$ctx"
says "--label" '"who": "me"' sh -c "'$PORTOLAN' acr build -r $REG -t label:1 --label who=me '$ctx' >/dev/null 2>&1 && '$PORTOLAN' acr pull '$LOGIN_SERVER/label:1' --to '$WORK/label' >/dev/null 2>&1 && cat '$WORK'/label/blobs/sha256/* | grep -ao '\"who\": *\"me\"' | sed 's/\":\"/\": \"/'"
printf 'FROM busybox\nCOPY --from=lib /part /part\nCOPY --from=other /greeting /other\nRUN cat /part /other\n' >"$ctx/Named"
echo "a part of a library" >"$WORK/lib/part"
out=$(b -t named:1 -f "$ctx/Named" --build-context "lib=$WORK/lib" --build-context "other=docker-image://$LOGIN_SERVER/many:v1" "$ctx" 2>&1) || fail "--build-context" "$out"
says "--build-context of a folder" "a part of a library" printf '%s' "$out"
says "and of an image" "hello nobody" printf '%s' "$out"
refuses "one that is not there" "Unable to find" b -t named:1 -f "$ctx/Named" --build-context lib=/does/not/exist "$ctx"
check "--annotation" b -t annotated:1 --annotation org.example.note=hello "$ctx"
says "is in the manifest" 'org.example.note' p acr manifest show "$LOGIN_SERVER/annotated:1" --raw
check "--iidfile and --metadata-file" b -t meta:1 --iidfile "$WORK/iid" --metadata-file "$WORK/meta.json" "$ctx"
says "the ID is a digest" '^sha256:[0-9a-f]{64}$' cat "$WORK/iid"
digest=$(p acr repository show -n "$REG" -t meta:1 --query digest -o tsv)
says "the metadata has the manifest" "\"containerimage.digest\": \"$digest\"" cat "$WORK/meta.json"
says "and the names" "\"image.name\": \".*/meta:1\"" cat "$WORK/meta.json"
equals "-q prints the digest and nothing else" "$digest" "$(b -t meta:1 -q "$ctx" 2>&1)"
refuses "-q says why a build failed" "exit code: 7" b -t x:1 -q -f "$ctx/Fail" "$ctx"
printf 'FROM busybox AS Big\nMAINTAINER me\nRUN echo not run\n' >"$ctx/Warn"
refuses "--check tells what is wrong and fails" "WARNING: StageNameCasing - https://" b --check -f "$ctx/Warn" "$ctx"
refuses "with a summary" "Check complete, .* warnings have been found" b --check -f "$ctx/Warn" "$ctx"
says "--check of a good Dockerfile" "no warnings found" b --check "$ctx"
says "a build sums its warnings up" "^ 2 warnings found" b -t warn:1 -f "$ctx/Warn" "$ctx"
says "--progress rawjson is JSON by lines" "^ok$" sh -c "'$PORTOLAN' acr build -r $REG -t raw:1 --progress rawjson '$ctx' 2>/dev/null | python3 -c '
import json, sys
names = [v[\"name\"] for line in sys.stdin for v in json.loads(line).get(\"vertexes\", [])]
assert any(\"COPY sub\" in n for n in names), names
print(\"ok\")'"
refuses "--progress tty without a terminal" "needs a terminal" b -t raw:1 --progress tty "$ctx"
refuses "an option of a newer client is refused by its name" "there is no option colour" python3 - <<P
import json, os, ssl, subprocess, sys, urllib.request, urllib.error
env = dict(os.environ)
boot = json.load(open(os.environ["BOOTSTRAP"]))
trust = ssl.create_default_context(cafile=os.environ["CA"])
def ask(url, data, headers):
    try:
        return urllib.request.urlopen(urllib.request.Request(url, data, headers), context=trust).read()
    except urllib.error.HTTPError as e:
        sys.exit(e.read().decode())
form = "grant_type=client_credentials&client_id=%s&client_secret=%s&scope=%s/.default" % (boot["clientId"], urllib.request.quote(boot["clientSecret"]), boot["server"])
token = json.loads(ask("%s/%s/oauth2/v2.0/token" % (boot["server"], boot["tenantId"]), form.encode(), {}))["access_token"]
path = "/subscriptions/%s/resourceGroups/$GROUP/providers/Microsoft.ContainerRegistry/registries/$REG/scheduleRun?api-version=2019-06-01-preview" % boot["subscriptionId"]
order = {"type": "DockerBuildRequest", "imageNames": [], "isPushEnabled": False, "sourceLocation": "source/x.tar.gz", "platform": {"os": "linux"}, "dockerFilePath": "Dockerfile", "buildOptions": {"colour": "red"}}
ask(boot["server"] + path, json.dumps(order).encode(), {"Authorization": "Bearer " + token, "Content-Type": "application/json"})
P

# --- on a terminal -------------------------------------------------------------------------
# terminal COLUMNS ROWS CMD…: run it on a terminal of that size and print what it wrote there. Once
# SEEN was seen, the window becomes half as wide and Ctrl-C is pressed; TIMES times, if that is said.
cat >"$WORK/terminal.py" <<'P'
import fcntl, os, pty, select, signal, struct, sys, termios, time
columns, rows, seen, times = int(sys.argv[1]), int(sys.argv[2]), os.environ.get("SEEN", "").encode(), int(os.environ.get("TIMES", "0"))
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[3], sys.argv[3:])
size = lambda c: fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, c, 0, 0))
size(columns)
out, typed, end = b"", 0, time.monotonic() + 120
while time.monotonic() < end:
    if not select.select([fd], [], [], 0.2)[0]:
        continue
    try:
        part = os.read(fd, 65536)
    except OSError:
        break
    if not part:
        break
    out += part
    if seen and typed == 0 and seen in out:
        size(columns // 2)
        os.write(fd, b"\x03")
        typed = 1
    elif typed and typed < times and b"Cancelling" in out:
        os.write(fd, b"\x03")
        typed += 1
status = os.waitpid(pid, 0)[1]
sys.stdout.buffer.write(out)
print("\nexit", os.waitstatus_to_exitcode(status))
P
terminal() { python3 "$WORK/terminal.py" "$@"; }
export TERM=xterm
printf 'FROM busybox\nRUN printf "\\033[2J\\033]0;owned\\007over\\033[31mred\\n"; printf "\\377\\376raw\\n"; sleep 0.5\n' >"$ctx/Rude"
out=$(terminal 100 30 "$PORTOLAN" acr build -r "$REG" -t tty:1 --no-cache -f "$ctx/Rude" "$ctx")
says "a terminal gets a view of all steps" "\[\+\] Building [0-9.]+s \([0-9]+/[0-9]+\) FINISHED" printf '%s' "$out"
says "which is drawn anew" $'\x1b\\[[0-9]+A' printf '%s' "$out"
equals "what steps want of the terminal is left out" 0 "$(grep -ac $'\x1b\\]' <<<"$out")"
equals "not one of their sequences clears it" 0 "$(grep -ac $'\x1b\\[2J' <<<"$out")"
out=$(NO_COLOR=1 terminal 100 30 "$PORTOLAN" acr build -r "$REG" -t tty:1 --no-cache --progress plain -f "$ctx/Rude" "$ctx")
equals "NO_COLOR leaves colours out" 0 "$(grep -ac $'\x1b\\[3' <<<"$out")"
says "and bytes that are no text are shown as such" "raw" printf '%s' "$out"
equals "the log itself holds no such sequence either" 0 "$(p acr task logs -r "$REG" | grep -ac -e $'\x1b\\]' -e $'\x1b\\[2J')"

before=$(date +%s%N)
out=$(SEEN=asleep terminal 80 24 "$PORTOLAN" acr build -r "$REG" -t intr:1 -f "$ctx/Slow" --no-cache "$ctx")
says "Ctrl-C cancels the run and waits for its end" "was cancelled" printf '%s' "$out"
says "with the exit code of an interrupted command" "^exit 130" printf '%s' "$out"
equals "and the run is cancelled" Canceled "$(status "$(newest)")"
equals "nothing of its step is left" 0 "$(pgrep -fc 'sleep 600' || true)"
out=$(SEEN=asleep TIMES=2 terminal 80 24 "$PORTOLAN" acr build -r "$REG" -t intr:2 -f "$ctx/Slow" --no-cache "$ctx")
says "Ctrl-C twice leaves" "^exit 130" printf '%s' "$out"
eventually "and the run ends all the same" 10 is "$(newest)" Canceled
"$PORTOLAN" acr build -r "$REG" -t term:1 -f "$ctx/Slow" --no-cache "$ctx" >"$WORK/term.log" 2>&1 &
client=$!
eventually "a build without a terminal is under way" 30 grep -q asleep "$WORK/term.log"
kill -TERM $client
wait $client && ended=0 || ended=$?
equals "SIGTERM cancels, too" 130 $ended
equals "and the run" Canceled "$(status "$(newest)")"
