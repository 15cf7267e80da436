"""How fast an endpoint decides: beside an empty ASGI application, MLflow's server and Ray Serve on the same policies.

    python -m benchmarks.serving [--requests 20000] [--rounds 5] [--only empty,table,...]

The load generator is a process of its own, pinned to the first core; every server, with all its processes, has the last
core. Latency is the time from the first byte of a request to the last of its answer at one client; the rate is that of
16 clients that ask without a pause. Rounds take turns between the servers, which stay up; figures are medians over
rounds, and ratios are of the same round. Memory is watched by `benchmarks.serving_memory`.

| contestant | what |
|---|---|
| empty | raw ASGI on uvicorn and httptools that answers the same bytes to everything |
| table | `policylab serve` of a tabular policy |
| network | `policylab serve` of a network with two layers of 64 units |
| guarded | table, with every decision captured, and a canary baking with its promotion test |
| shadowed | the same with a shadow |
| mlflow-table, mlflow-network | `mlflow models serve` of the same bundles, as policylab logs them |
| ray-table, ray-network | a plain Ray Serve deployment of the same bundles (pip install 'policylab[scale]') |
"""

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import selectors
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import gymnasium as gym
import numpy as np

from policylab.agents.action_distributions import Categorical
from policylab.agents.bundle import Lineage, write_bundle
from policylab.agents.features import AutoFeatures, make_encoder
from policylab.agents.onnx_policy import OnnxPolicy, OnnxSettings
from policylab.agents.value_policies import TabularPolicy

CLIENTS = 16
CONTESTANTS = (
    "empty",
    "table",
    "network",
    "guarded",
    "shadowed",
    "mlflow-table",
    "mlflow-network",
    "ray-table",
    "ray-network",
)
OBSERVATIONS = {
    "table": list(range(16)),
    "network": np.random.default_rng(1).uniform(-0.2, 0.2, (16, 4)).round(3).tolist(),
}
"""Asked about in turn: all states of the table."""


# ------------------------------------------------------------------ policies


def table_bundle(folder):
    env = gym.make("FrozenLake-v1")
    values = np.random.default_rng(0).normal(size=(16, 4))
    policy = TabularPolicy(values, make_encoder(AutoFeatures(), env.observation_space), epsilon=0.1)
    write_bundle(folder, policy, env=env, lineage=Lineage(), metrics={})
    return folder


def network_bundle(folder):
    from onnx import TensorProto, helper, numpy_helper

    rng, sizes, numbers, nodes, name = np.random.default_rng(0), (4, 64, 64, 2), [], [], "observation"
    for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        weights = rng.normal(scale=n_in**-0.5, size=(n_in, n_out)).astype(np.float32)
        numbers += [numpy_helper.from_array(weights, f"w{i}"),
                    numpy_helper.from_array(np.zeros(n_out, np.float32), f"b{i}")]  # fmt: skip
        last = i == len(sizes) - 2
        nodes.append(helper.make_node("Gemm", [name, f"w{i}", f"b{i}"], ["outputs" if last else f"h{i}"]))
        if not last:
            nodes.append(helper.make_node("Tanh", [f"h{i}"], [f"a{i}"]))
            name = f"a{i}"
    graph = helper.make_graph(
        nodes, "policy",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["n", 2])], numbers,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    settings = OnnxSettings(inputs={"observation": ()}, distribution=Categorical(n_actions=2))
    policy = OnnxPolicy(model.SerializeToString(), settings)
    write_bundle(folder, policy, env=gym.make("CartPole-v1"), lineage=Lineage(), metrics={})
    return folder


# ------------------------------------------------------------------ servers


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Server:
    """One contestant in a process group of its own, on the last core."""

    def __init__(self, name, *, folder, bundles):
        self.name, self.port = name, free_port()
        kind = name.partition("-")[2] or ("network" if name == "network" else "table")
        self.path, bodies = "/invocations", [{"observation": one} for one in OBSERVATIONS[kind]]
        peers = [sys.executable, "-m", "benchmarks.serving_peers"]
        if name == "empty":
            command = [*peers, "empty"]
        elif name.startswith("ray"):
            self.path = "/"
            command = [*peers, "ray", "--bundle", str(bundles[kind])]
        elif name.startswith("mlflow"):
            from policylab.experiments.tracking.mlflow_policy import save_policy

            save_policy(folder / name, bundles[kind])
            bodies = [{"inputs": [one]} for one in OBSERVATIONS[kind]]
            command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder / name),
                       "--env-manager", "local", "--workers", "1"]  # fmt: skip
        else:
            source = bundles[name] if name in bundles else self._guarded(folder, bundles["table"])
            command = [sys.executable, "-m", "policylab", "serve", str(source)]
        self.bodies = [json.dumps(body).encode() for body in bodies]
        self.log = (folder / f"{name}.log").open("w+")
        cores = os.sched_getaffinity(0)
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port)], stdout=self.log, stderr=self.log, start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {max(cores)}),
        )  # fmt: skip

    def _guarded(self, folder, bundle):
        config = {
            "name": "policy",
            "variants": [{"name": "policy", "bundle": str(bundle)}],
            "shadows": [{"name": "shadow", "bundle": str(bundle)}] if self.name == "shadowed" else [],
            "capture": {"folder": str(folder / f"captured-{self.name}"), "max_disk_use": 1.0},
        }
        promotion = {"reward_low": 0, "reward_high": 1}
        guardrail = {"kind": "canary", "size": 0.5, "bake_s": 3600, "promotion": promotion}
        self.update = {**config, "guardrail": guardrail}
        path = folder / f"{self.name}.yaml"
        path.write_text(json.dumps(config))
        return path

    def wait(self):
        deadline = time.monotonic() + 120
        while True:
            try:
                request = urllib.request.Request(f"http://127.0.0.1:{self.port}{self.path}", self.bodies[0],
                                                 {"content-type": "application/json"})  # fmt: skip
                urllib.request.urlopen(request, timeout=5).read()
                break
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.log.seek(0)
                    raise SystemExit(f"{self.name} does not answer: {error}\n{self.log.read()[-2000:]}") from None
                time.sleep(0.2)
        if self.name in ("guarded", "shadowed"):
            body = json.dumps({"config": self.update}).encode()
            request = urllib.request.Request(f"http://127.0.0.1:{self.port}/endpoints/policy/update", body,
                                             {"content-type": "application/json"})  # fmt: skip
            urllib.request.urlopen(request, timeout=30).read()

    def requests(self):
        head = f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\ncontent-type: application/json\r\n"
        return [f"{head}content-length: {len(body)}\r\n\r\n".encode() + body for body in self.bodies]

    def resident_mb(self):
        with open(f"/proc/{self.process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def end(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()


# ------------------------------------------------------------------ load


def whole(answer):
    """Return whether an answer has arrived whole, and refuse any but a 200."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        return False
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(answer[:500])
    lower = head.lower()
    at = lower.find(b"content-length:")
    if at < 0:
        return body.endswith(b"0\r\n\r\n")  # chunked
    return len(body) >= int(lower[at + 15 :].partition(b"\r\n")[0])


def latencies(port, *, requests, n):
    """Return the seconds of n of the iterator's requests of one client, one after the other."""
    found = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for request in itertools.islice(requests, n):
            began = time.perf_counter()
            connection.sendall(request)
            answer = connection.recv(65536)
            while not whole(answer):
                answer += connection.recv(65536)
            found.append(time.perf_counter() - began)
    return found


def rate(port, *, requests, n):
    """Return the requests a second of `CLIENTS` clients that ask without a pause, n of the iterator's requests."""
    selector, answers, left = selectors.DefaultSelector(), {}, n
    for _ in range(CLIENTS):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(connection, selectors.EVENT_READ)
        answers[connection] = b""
    began = time.perf_counter()
    for connection in answers:
        connection.sendall(next(requests))
    while left > 0:
        for key, _ in selector.select():
            connection = key.fileobj
            answers[connection] += connection.recv(65536)
            if whole(answers[connection]):
                answers[connection] = b""
                left -= 1
                if left >= CLIENTS:
                    connection.sendall(next(requests))
    elapsed = time.perf_counter() - began
    for connection in answers:
        connection.close()
    selector.close()
    return n / elapsed


def load(task, pipe):
    """The load generator's process, on the first core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    what, port, requests, n = task
    requests = itertools.cycle(requests)
    if what == "latency":
        pipe.send(latencies(port, requests=requests, n=n))
    else:
        pipe.send(rate(port, requests=requests, n=n))


def generated(what, server, *, n):
    mine, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=load, args=((what, server.port, server.requests(), n), theirs)
    )
    process.start()
    theirs.close()
    found = mine.recv()
    process.join()
    return found


def measure(servers, *, n, rounds):
    """Return per contestant and round: median and 99th percentile of latency in microseconds, requests a second."""
    found = {server.name: [] for server in servers}
    for round_ in range(rounds + 1):
        for server in servers:
            n_now = n if "-" not in server.name else max(200, n // 10)  # the peers are slower
            times = sorted(generated("latency", server, n=n_now))
            per_s = generated("rate", server, n=n_now)
            if round_:  # the first warms up
                found[server.name].append((1e6 * times[len(times) // 2], 1e6 * times[int(0.99 * len(times))], per_s))
    return found


def report(found):
    print(f"{'':16s} {'p50 us':>9s} {'p99 us':>9s} {'requests/s':>11s} {'p50 / empty':>12s} {'rate / table':>13s}")
    for name, rounds in found.items():
        p50, p99, per_s = (statistics.median(values) for values in zip(*rounds, strict=True))
        ratios = {}
        for other, column in (("empty", 0), ("table", 2)):
            if other in found:
                pairs = zip(rounds, found[other], strict=True)
                ratios[other] = f"{statistics.median(mine[column] / its[column] for mine, its in pairs):.2f}"
        print(f"{name:16s} {p50:9.0f} {p99:9.0f} {per_s:11,.0f} {ratios.get('empty', '-'):>12s} "
              f"{ratios.get('table', '-'):>13s}")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(CONTESTANTS), help="names, separated by commas")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="serving-"))
    bundles = {"table": table_bundle(folder / "table"), "network": network_bundle(folder / "network")}
    servers = []
    try:
        for name in arguments.only.split(","):
            servers.append(Server(name, folder=folder, bundles=bundles))
            servers[-1].wait()
        report(measure(servers, n=arguments.requests, rounds=arguments.rounds))
    finally:
        for server in servers:
            server.end()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
