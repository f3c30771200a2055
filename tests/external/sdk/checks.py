"""What the Python scripts here share: a line for each check, counted with all the others."""

import os
import sys
import time


def note(result):
    with open(os.environ["RESULTS"], "a") as results:
        results.write(result + "\n")


def check(what, good, seen=None):
    """`what` is so, or the script ends."""
    if good:
        print(f"ok - {what}", flush=True)
        note("ok")
    else:
        print(f"NOT OK - {what}\n    {seen!r}", flush=True)
        note("failed")
        sys.exit(1)


def equals(what, expected, seen):
    check(what, expected == seen, {"expected": expected, "got": seen})


def refuses(what, call, *errors, says=""):
    """`call` raises one of `errors`, whose text has `says` in it."""
    try:
        value = call()
    except errors as error:
        check(what, says.lower() in str(error).lower(), error)
    else:
        check(what, False, value)


def eventually(what, seconds, call):
    """`call` gives something true before the time is over."""
    end = time.monotonic() + seconds
    while not (value := call()):
        if time.monotonic() > end:
            check(what, False, value)
        time.sleep(0.1)
    check(what, True)
