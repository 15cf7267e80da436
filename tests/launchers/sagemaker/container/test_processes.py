"""Process 1's duties: orphans are collected, and nothing below it outlives it."""

import subprocess
import sys

PROGRAM = """
import os, signal, subprocess, sys, time
from policylab.launchers.sagemaker.container.processes import (
    become_subreaper, descendants, end_descendants, reap_orphans
)

def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

def zombies():
    return [pid for pid in descendants() if " Z " in open(f"/proc/{pid}/stat").read()]

become_subreaper()
"""


def run(body):
    done = subprocess.run([sys.executable, "-c", PROGRAM + body], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_orphans_come_here_and_are_collected_but_not_the_children_of_others():
    run("""
own = subprocess.Popen(["sh", "-c", "exit 7"])
until(lambda: own.pid in zombies())
subprocess.run(["sh", "-c", "sleep 0.1 & exit"])
until(lambda: len(descendants()) == 1 or len(zombies()) == 2)
reap_orphans([own.pid])
assert own.pid in zombies(), "its maker collects it"
assert own.wait() == 7
until(lambda: reap_orphans([]) is None and descendants() == [])
""")


def test_everything_below_ends_the_deaf_and_the_daemons_too():
    run("""
subprocess.run(["sh", "-c", "setsid sleep 1000 & sleep 1000 &"])
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(1000)"
child = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
assert child.stdout.readline() == b"deaf\\n"
pids = descendants()
assert len(pids) == 3
end_descendants(timeout_s=0.5)
assert descendants() == []
for pid in pids:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        continue
    raise AssertionError(pid)
""")


def test_a_process_that_stops_in_an_orderly_way_is_given_the_time():
    run("""
orderly = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('saved', flush=True)));" \\
    "print('ready', flush=True); time.sleep(1000)"
child = subprocess.Popen([sys.executable, "-c", orderly], stdout=subprocess.PIPE)
assert child.stdout.readline() == b"ready\\n"
end_descendants(timeout_s=20)
assert child.stdout.read() == b"saved\\n"
""")
