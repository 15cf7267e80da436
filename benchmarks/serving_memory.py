"""Whether an endpoint's memory ends to grow: resident memory over a million requests that are all new to it.

    python -m benchmarks.serving_memory [--requests 1000000] [--every 50000]

The worst case for whatever remembers something of a request: each has an inference id, a session and an episode of its
own that never come again, and none gets a reward. A tabular policy, every decision captured, a canary baking with its
promotion test (`guarded` of `benchmarks.serving`). Captured files are removed as the endpoint goes on to the next.
Prints the resident memory of the server after every N requests, and the slope over the second half.
"""

import argparse
import itertools
import shutil
import tempfile
from pathlib import Path

import numpy as np
from benchmarks.serving import Server, rate, table_bundle


def new_requests(server):
    """Yield requests that have nothing in common but their observation."""
    for i in itertools.count():
        body = b'{"observation": 3, "episode": "episode-%d"}' % i
        yield (
            f"POST {server.path} HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\ncontent-type: application/json\r\n"
            f"x-amzn-sagemaker-inference-id: request-{i}\r\nx-amzn-sagemaker-session-id: session-{i}\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode() + body


def remove_old(folder):
    """Remove all captured files but those that were changed last."""
    for old in sorted(folder.rglob("*.jsonl"), key=lambda path: path.stat().st_mtime)[:-2]:
        old.unlink()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--every", type=int, default=50_000)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="serving-memory-"))
    server = Server("guarded", folder=folder, bundles={"table": table_bundle(folder / "table")})
    found = []
    try:
        server.wait()
        requests = new_requests(server)
        found.append((0, server.resident_mb()))
        print(f"{'requests':>10s} {'MB':>7s} {'requests/s':>11s}\n{0:10,d} {found[0][1]:7.1f}", flush=True)
        for n in range(arguments.every, arguments.requests + 1, arguments.every):
            per_s = rate(server.port, requests=requests, n=arguments.every)
            found.append((n, server.resident_mb()))
            print(f"{n:10,d} {found[-1][1]:7.1f} {per_s:11,.0f}", flush=True)
            remove_old(folder)
    finally:
        server.end()
        shutil.rmtree(folder, ignore_errors=True)
    half = np.array(found[len(found) // 2 :])
    slope = np.polyfit(half[:, 0], half[:, 1], 1)[0] * 1e5
    print(f"first {found[0][1]:.0f} MB, most {max(mb for _, mb in found):.0f} MB, last {found[-1][1]:.0f} MB; "
          f"second half: {slope:+.2f} MB for 100,000 requests")  # fmt: skip


if __name__ == "__main__":
    main()
