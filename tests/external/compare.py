#!/usr/bin/env python3
"""Builds the same Dockerfiles with docker (BuildKit and classic), with buildah and with ours,
and compares what comes out.

usage: compare.py [NAME-GLOB…]        (run by compare.sh, which sets the environment)

Cases are in compare/*.txt, many in a file:

    === name of the case
    args: --target x --build-arg A=1     given to all builders; %CTX/ is the context, where a
                                         name is taken from the current folder by docker;
                                         %ABS/ is the context's path for ours too
    expect: refused                      both must refuse (nothing else is compared)
    expect: ours refuses: reason         only ours must
    expect: docker refuses: reason       only docker must, with what is newer than it
    differs: tree /etc/hosts*: reason    a difference that is known and must occur; classic
                                         docker or buildah must be on our side
    alone: tree /x mode: reason          the same, where none of the three is on our side
    --- Dockerfile                       a file of the context, with its text
    --- Dockerfile.docker                the same build in words that the others know, for
                                         what is newer than they; not part of the context
    --- dir/                             a directory
    --- name -> target                   a symbolic link
    --- name => other                    a hard link
    --- name fifo                        a FIFO
    --- name tar                         an archive (.gz in the name: compressed), whose
                                         members are written one a line in the same way

Words after a name set what it is like: mode=755 mtime=86400 eol=crlf bom=1 text=… xattr=n:v,
and for members of archives uid= and gid= too. %XX in names, targets and texts is a byte.

Compared are: the image configuration without what names a build (times, host, digests), the
history's instructions and empty layers, the number of layers, and the file tree that the
layers amount to: type, mode, owner, size, link target, content, names of a hard link,
device numbers, extended attributes and, for what is older than the test, the mtime.

BuildKit is what ours must equal. The others are witnesses: they confirm, or not, where ours and
BuildKit differ, and they judge where BuildKit has no answer. Of their answers the history, the
number of layers and the places that they mount things on do not count.

What later releases of BuildKit changed everywhere is taken for equal: this docker loses the
times of a context's directories that have something in them, and leaves --chown, --chmod,
--link and the values of ARG out of the history.
"""

import base64
import concurrent.futures
import fnmatch
import hashlib
import io
import json
import os
import pathlib
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import tarfile
import threading
import time
import urllib.parse
import urllib.request
import zlib

HERE = pathlib.Path(__file__).parent / "compare"
WORK = pathlib.Path(os.environ["WORK"]) / "compare"
LOGIN_SERVER = os.environ["LOGIN_SERVER"]
OLD = 981173106  # the mtime of what says no other
START = time.time()
RECENT = START - 86400
PARALLEL = 2
WITNESSES = os.environ.get("COMPARE_WITNESSES", "1") != "0"
COUNTING = threading.Lock()
COUNTS = {"facts": 0, "classic": [0, 0], "buildah": [0, 0]}

# --- cases ------------------------------------------------------------------------------


class Case:
    def __init__(self, name):
        self.name, self.args, self.refuse, self.differs, self.files = name, [], set(), [], []
        self.old_words = None


def unescape(text):
    return urllib.parse.unquote_to_bytes(text)


def spec(line):
    """`name [->|=> target] [word…] [key=value…]`: what a file of a context is to be."""
    words = shlex.split(line)
    file = {"name": unescape(words[0]).decode(), "kind": "file", "body": b""}
    rest = words[1:]
    if file["name"].endswith("/") and file["name"] != "/":
        file["name"], file["kind"] = file["name"].rstrip("/"), "dir"
    if rest and rest[0] in ("->", "=>"):
        file["kind"] = "symlink" if rest[0] == "->" else "hard"
        file["target"] = unescape(rest[1]).decode()
        rest = rest[2:]
    for word in rest:
        key, equals, value = word.partition("=")
        if equals:
            file[key] = value
        else:
            file["kind"] = key
    if "text" in file:
        file["body"] = unescape(file["text"])
    return file


def read_cases():
    cases = []
    for path in sorted(HERE.glob("*.txt")):
        case = file = None
        for number, line in enumerate(path.read_text().splitlines(keepends=True), 1):
            if line.startswith("=== "):
                case, file = Case(line[4:].strip()), None
                cases.append(case)
            elif case is None:
                continue  # the file's introduction
            elif line.startswith("--- "):
                file = spec(line[4:])
                case.files.append(file)
            elif file is not None:
                if line.strip() or "text" not in file:
                    file["body"] += line.encode()
            elif line.startswith("args:"):
                case.args = shlex.split(line[5:])
            elif line.startswith("expect:"):
                who = line[7:].split()[0]
                case.refuse = {"refused": {"docker", "ours"}, "ours": {"ours"}, "docker": {"docker"}}[who]
            elif line.startswith(("differs:", "alone:")):
                kind, _, rest = line.partition(":")
                what, _, reason = rest.strip().partition(": ")
                case.differs.append((what, reason, kind == "alone"))
            elif line.strip() and not line.startswith("#"):
                sys.exit(f"{path}:{number}: not understood: {line}")
    for case in cases:
        for file in [f for f in case.files if f["name"] == "Dockerfile.docker"]:
            case.old_words = file["body"]
            case.files.remove(file)
    names = [case.name for case in cases]
    for name in names:
        if names.count(name) > 1:
            sys.exit(f"two cases are called {name!r}")
    return cases


def archive(lines, compressed):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz" if compressed else "w", format=tarfile.PAX_FORMAT) as tar:
        for line in lines.decode().splitlines():
            if not line.strip():
                continue
            file = spec(line)
            info = tarfile.TarInfo(file["name"])
            info.mtime = float(file.get("mtime", OLD))
            info.uid, info.gid = int(file.get("uid", 0)), int(file.get("gid", 0))
            kind = file["kind"]
            info.mode = int(file.get("mode", "755" if kind == "dir" else "644"), 8)
            info.type = {
                "file": tarfile.REGTYPE, "dir": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE,
                "hard": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE, "char": tarfile.CHRTYPE,
            }[kind]
            info.linkname = file.get("target", "")
            info.devmajor, info.devminor = int(file.get("major", 0)), int(file.get("minor", 0))
            if "xattr" in file:
                name, _, value = file["xattr"].partition(":")
                info.pax_headers["SCHILY.xattr." + name] = unescape(value).decode()
            info.size = len(file["body"]) if kind == "file" else 0
            tar.addfile(info, io.BytesIO(file["body"]))
    return out.getvalue()


def write_context(case, root):
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    times = []
    for file in case.files:
        path = root / file["name"]
        made = path.parent
        while made != root:
            if not made.exists():
                times.append((made, OLD))
            made = made.parent
        path.parent.mkdir(parents=True, exist_ok=True)
        kind, body = file["kind"], file["body"]
        if file.get("eol") == "crlf":
            body = body.replace(b"\n", b"\r\n")
        if file.get("bom"):
            body = b"\xef\xbb\xbf" + body
        if kind == "dir":
            path.mkdir(exist_ok=True)
        elif kind == "symlink":
            path.symlink_to(file["target"])
        elif kind == "hard":
            os.link(root / file["target"], path)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "tar":
            path.write_bytes(archive(body, ".gz" in file["name"] or ".tgz" in file["name"]))
        else:
            path.write_bytes(body)
        if kind not in ("symlink", "hard"):
            path.chmod(int(file.get("mode", "755" if kind == "dir" else "644"), 8))
        if "xattr" in file:
            name, _, value = file["xattr"].partition(":")
            os.setxattr(path, name, value.encode())
        times.append((path, float(file.get("mtime", OLD))))
    for path, mtime in reversed(times):
        os.utime(path, ns=(int(mtime * 10**9),) * 2, follow_symlinks=False)


# --- images -----------------------------------------------------------------------------


def tree_of(layers):
    """What layers amount to: path -> entry. A hard link shares its entry."""
    tree = {}

    def drop(path, keep=()):
        for other in [p for p in tree if p == path or p.startswith(path + "/")]:
            if other not in keep:
                del tree[other]

    for layer in layers:
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            members = [(os.path.normpath("/" + m.name.lstrip("/")), m) for m in tar]
            for path, _ in members:
                folder, name = os.path.split(path)
                if name == ".wh..wh..opq":
                    drop(folder, keep=(folder,))
                elif name.startswith(".wh."):
                    drop(os.path.join(folder, name[4:]))
            for path, member in members:
                if os.path.basename(path).startswith(".wh.") or path == "/":
                    continue
                if not (member.isdir() and path in tree and tree[path]["type"] == "dir"):
                    drop(path)
                if member.islnk():
                    tree[path] = tree[os.path.normpath("/" + member.linkname.lstrip("/"))]
                    continue
                kind = {
                    tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "symlink", tarfile.FIFOTYPE: "fifo",
                    tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block",
                }.get(member.type, "file")
                entry = {"type": kind, "owner": f"{member.uid}:{member.gid}"}
                entry["mtime"] = "recent" if member.mtime > RECENT else int(member.mtime)
                if kind == "symlink":
                    entry["target"] = member.linkname
                else:
                    entry["mode"] = oct(member.mode & 0o7777)
                if kind == "file":
                    body = tar.extractfile(member).read()
                    entry["size"], entry["sha256"] = len(body), hashlib.sha256(body).hexdigest()
                    entry["text"] = body[:60]
                if kind in ("char", "block"):
                    entry["device"] = f"{member.devmajor}:{member.devminor}"
                for key, value in member.pax_headers.items():
                    if key.startswith("SCHILY.xattr."):
                        entry["xattr " + key[13:]] = value
                tree[path] = entry
    names = {}
    for path, entry in tree.items():
        names.setdefault(id(entry), []).append(path)
    return {path: dict(entry, names=sorted(names[id(entry)])) for path, entry in tree.items()}


def arguments(case, context):
    """Arguments of the command line for the other builders."""
    args = [arg.replace("%CTX", str(context)).replace("%ABS", str(context)) for arg in case.args]
    if case.old_words is not None:
        path = context.with_suffix(".docker")
        path.write_bytes(case.old_words)
        args += ["-f", str(path)]
    return args


def saved(archive_bytes):
    """Configuration and layers of a docker archive."""
    with tarfile.open(fileobj=io.BytesIO(archive_bytes)) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))[0]
        config = json.load(tar.extractfile(manifest["Config"]))
        return config, [tar.extractfile(name).read() for name in manifest["Layers"]]  # follows links


def build_docker(case, context, tag, buildkit):
    env = dict(os.environ, DOCKER_BUILDKIT="1" if buildkit else "0")
    plain = ["--progress", "plain"] if buildkit else []
    argv = ["/usr/bin/docker", "build", *plain, "--network", "host", "-t", tag, *arguments(case, context), str(context)]
    done = subprocess.run(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    image = None
    if done.returncode == 0:
        # Classic docker stores some names that it cannot read again: then it is no witness.
        save = subprocess.run(["/usr/bin/docker", "save", tag], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        image = saved(save.stdout) if save.returncode == 0 else None
        subprocess.run(["/usr/bin/docker", "rmi", "-f", tag], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return image, done.stdout.decode(errors="replace")


def build_buildah(case, context, tag):
    argv = ["buildah", "bud", "--network", "host", "--pull-never", "--format", "docker", "-t", tag]
    argv += [*arguments(case, context), str(context)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    image = None
    if done.returncode == 0:
        path = context.with_suffix(".saved")
        # Some names it cannot store: then it is no witness.
        push = subprocess.run(["buildah", "push", "-q", tag, f"docker-archive:{path}:{tag}"], stderr=subprocess.DEVNULL)
        image = saved(path.read_bytes()) if push.returncode == 0 else None
        path.unlink(missing_ok=True)
        subprocess.run(["buildah", "rmi", "-f", tag], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return image, done.stdout.decode(errors="replace")


def opener():
    context = ssl.create_default_context(cafile=os.environ["CA"])
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))


def fetch(path, accept="*/*"):
    user = base64.b64encode(f"{os.environ['REG']}:{PASSWORD}".encode()).decode()
    headers = {"Authorization": "Basic " + user, "Accept": accept}
    with OPENER.open(urllib.request.Request(f"https://{LOGIN_SERVER}/v2/{path}", headers=headers)) as answer:
        return answer.read()


def build_ours(case, context, tag):
    args = [arg.replace("%CTX/", "").replace("%ABS", str(context)) for arg in case.args]
    argv = [os.environ["PORTOLAN"], "acr", "build", "-r", os.environ["REG"], "-t", tag, *args, str(context)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    if done.returncode != 0:
        return None, done.stdout.decode(errors="replace")
    name, reference = tag.split(":")
    manifest = json.loads(fetch(f"{name}/manifests/{reference}", "application/vnd.docker.distribution.manifest.v2+json"))
    blob = fetch(f"{name}/blobs/{manifest['config']['digest']}")
    layers = [zlib.decompress(fetch(f"{name}/blobs/{layer['digest']}"), 31) for layer in manifest["layers"]]
    config = json.loads(blob)
    for layer, diff_id in zip(layers, config["rootfs"]["diff_ids"], strict=True):
        if "sha256:" + hashlib.sha256(layer).hexdigest() != diff_id:
            raise ValueError(f"{diff_id} is not what its layer amounts to")
    return (config, layers), done.stdout.decode(errors="replace")


# --- comparison -------------------------------------------------------------------------

FLAGS = re.compile(r"(?: --(?:chown|chmod|link)(?:=\S*)?)+(?= .*# buildkit$)")
ARG_VALUES = re.compile(r"^(ARG \w+).*")


def instruction(created_by):
    """What history says of an instruction, without what newer releases of BuildKit add."""
    return ARG_VALUES.sub(r"\1", FLAGS.sub("", created_by))


VOLATILE = {"created", "container", "docker_version", "container_config", "history", "rootfs", "config", "moby.buildkit.buildinfo.v1"}


def flat_config(config):
    out = {f"config {key}": value for key, value in config.items() if key not in VOLATILE and value}
    inner = {f"config {key}": value for key, value in config.get("config", {}).items() if value}
    for volatile in ("config Hostname", "config Image"):
        inner.pop(volatile, None)
    return out | inner


def facts(image):
    """All that is compared with every builder: `what` -> value."""
    config, layers = image
    out = flat_config(config)
    for path, entry in tree_of(layers).items():
        for key, value in entry.items():
            if key != "sha256" or "text" not in entry:
                out[f"tree {path} {key}"] = value
    return out


def pairs(theirs, mine):
    """What differs between the facts of two images, as (what, theirs, mine)."""
    absent = {w.rsplit(" ", 1)[0] for w in theirs.keys() ^ mine.keys() if w.startswith("tree ") and w.endswith(" type")}
    for what in sorted(theirs.keys() | mine.keys()):
        left, right = theirs.get(what), mine.get(what)
        if what.startswith("tree "):
            of = what.rsplit(" ", 1)[0]
            if of in absent:
                if what.endswith(" type"):
                    yield of, left, right
                continue
            if what.endswith(" mtime") and left == "recent" and theirs.get(f"{of} type") == "dir":
                continue
        if left != right:
            yield what, left, right


def differences(docker, ours, history):
    """Lines `what: docker has …, ours has …`."""
    out = [(what, f"docker {left!r}, ours {right!r}") for what, left, right in pairs(facts(docker), facts(ours))]
    if not history:
        return out

    def differ(what, theirs, mine):
        if theirs != mine:
            out.append((what, f"docker {theirs!r}, ours {mine!r}"))

    (their_config, their_layers), (my_config, my_layers) = docker, ours
    histories = [
        [(instruction(h.get("created_by", "")), h.get("empty_layer", False)) for h in config.get("history", [])]
        for config in (their_config, my_config)
    ]
    for number in range(max(map(len, histories))):
        differ(f"history {number}", *(h[number] if number < len(h) else None for h in histories))
    differ("layers", len(their_layers), len(my_layers))
    kept = sum(1 for _, empty in histories[1] if not empty)
    if kept != len(my_layers):
        out.append(("layers", f"our history speaks of {kept} layers, there are {len(my_layers)}"))
    return out


# Where the other builders mount things while a step runs, and what they add of their own.
WITNESS_SKIPS = re.compile(
    r"tree /(?:dev|proc|sys|run|etc)(?: |/|$)|tree /\S* mtime$|config (?:parent|Labels|Hostname|Image|author|Domainname|ArgsEscaped)$"
)


def against(witness, ours):
    """In what ours differs from a witness, of what a witness is asked."""
    return {what: (left, right) for what, left, right in pairs(witness, ours) if not WITNESS_SKIPS.match(what)}


def run(case, number):
    # A folder of its own for each run: docker's client sends only what changed in a folder,
    # and takes a file of the same size and time for the same.
    context = WORK / f"{os.getpid()}-{number}"
    write_context(case, context)
    tag = f"compare/c{number}:t"
    docker, docker_log = build_docker(case, context, tag, True)
    ours, our_log = build_ours(case, context, tag)
    witnesses = {}
    if WITNESSES:
        witnesses["classic"] = build_docker(case, context, f"compare/classic{number}:t", False)
        witnesses["buildah"] = build_buildah(case, context, f"compare/buildah{number}:t")

    def last(log):
        return "\n".join(log.strip().splitlines()[-25:])

    verbose = os.environ.get("COMPARE_VERBOSE")
    said = [f"docker said:\n{last(docker_log)}\nours said:\n{last(our_log)}"]
    if case.refuse:
        refused = {name for name, image in (("docker", docker), ("ours", ours)) if image is None}
        if refused != case.refuse:
            return [f"refused by {sorted(refused)}, not by {sorted(case.refuse)}", *said], []
    elif docker is None or ours is None:
        return ["docker failed" if docker is None else "ours failed", *said], []

    wrong, allowed, met = [], [], set()
    mine = facts(ours) if ours else {}
    theirs = {name: facts(image) for name, (image, _) in witnesses.items() if image}
    found = {name: against(other, mine) for name, other in theirs.items()} if ours else {}
    if docker and ours:
        for what, text in differences(docker, ours, case.old_words is None):
            for pattern, _, alone in case.differs:
                if fnmatch.fnmatchcase(what, pattern):
                    met.add(pattern)
                    sides = [name for name in found if not any(w == what or w.startswith(what) for w in found[name])]
                    allowed.append(f"{what}: {text}; with us: {', '.join(sides) or 'nobody'}")
                    if what.startswith(("tree", "config")) and WITNESSES and not sides and not alone:
                        wrong.append(f"{what}: {text}; neither classic docker nor buildah is on our side")
                    break
            else:
                wrong.append(f"{what}: {text}")
        wrong += [f"differs no longer: {pattern}" for pattern, _, _ in case.differs if pattern not in met]
    elif ours:
        # Only ours takes it, of docker's own: then whoever else takes it is to agree.
        for name in found:
            for what, (left, right) in found[name].items():
                if not any(fnmatch.fnmatchcase(what, pattern) for pattern, _, _ in case.differs):
                    wrong.append(f"{what}: {name} {left!r}, ours {right!r}")
    with COUNTING:
        for name in found:
            COUNTS[name][0] += len(mine) - len(found[name])
            COUNTS[name][1] += len(found[name])
        COUNTS["facts"] += len(mine)
    for name in found if verbose else ():
        allowed += [f"({name}) {what}: {left!r}, ours {right!r}" for what, (left, right) in found[name].items()]
    shutil.rmtree(context, ignore_errors=True)
    return wrong, (allowed + (said if case.refuse else [])) if verbose else []


def main():
    wanted = sys.argv[1:] or ["*"]
    cases = [(n, c) for n, c in enumerate(read_cases()) if any(fnmatch.fnmatchcase(c.name, w) for w in wanted)]
    if not cases:
        sys.exit(f"no case is called {' or '.join(wanted)}")
    bad = 0
    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool, open(os.environ["RESULTS"], "a") as results:
        jobs = [(case, pool.submit(run, case, number)) for number, case in cases]
        for case, job in jobs:
            try:
                wrong, notes = job.result()
            except Exception as error:  # one case's trouble is its own
                wrong, notes = [f"{type(error).__name__}: {error}"], []
            bad += bool(wrong)
            print("failed" if wrong else "ok", file=results)
            print(f"{'NOT OK' if wrong else 'ok'} - compare {case.name}")
            for line in "\n".join(wrong + notes).splitlines():
                print("    " + line)
            sys.stdout.flush()
    print(f"compared {len(cases)} builds in {time.time() - START:.0f} s, {bad} differ")
    for name in ("classic", "buildah"):
        same, other = COUNTS[name]
        print(f"{name}: {same} facts as ours, {other} otherwise (of {COUNTS['facts']} in all)")
    sys.exit(1 if bad else 0)


OPENER = opener()
PASSWORD = os.environ["COMPARE_PASSWORD"]

if __name__ == "__main__":
    main()
