"""Runs this folder's policy with ONNX Runtime and NumPy alone.

    python run.py --self-test          # compare with the answers that were recorded when the folder was made
    echo '[0, 0, 0.1, 0]' | python run.py    # one observation a line (JSON); prints one action a line

Or import it: ``from run import Policy; Policy().act(observation)``. Actions are the policy's deterministic ones.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

HERE = Path(__file__).resolve().parent


class Policy:
    """The network, and what its outputs mean."""

    def __init__(self, folder: Path = HERE) -> None:
        self.facts: dict[str, Any] = json.loads((folder / "policy.json").read_text())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def outputs(self, observation: Any) -> Any:
        """Return the network's outputs for one observation, shape (n_outputs,)."""
        parts: dict[str, Any] = {}
        for name, entry in self.facts["inputs"].items():
            part = observation
            for key in entry["path"]:
                part = part[key]
            parts[name] = np.asarray(part, dtype=entry["dtype"]).reshape(1, *entry["shape"])
        return self._session.run(None, parts)[0][0]

    def act(self, observation: Any) -> Any:
        """Return the action: a number, or a list of them."""
        outputs, what = self.outputs(observation), self.facts["distribution"]
        if what["kind"] in ("categorical", "q_values"):
            return int(outputs.argmax()) + what["first_action"]
        if what["kind"] == "multi_categorical":
            parts = np.split(outputs, np.cumsum(what["sizes"])[:-1])
            return [int(part.argmax()) + first for part, first in zip(parts, what["first_actions"], strict=True)]
        mean = outputs[: what["n_components"]]
        action = (np.tanh(mean) if what["squash_mode"] else mean).astype(what["dtype"])
        if what["low"] is not None:
            low, high = np.array(what["low"], action.dtype), np.array(what["high"], action.dtype)
            action = (low + (action + 1) * (high - low) / 2 if what["rescale"] else action).clip(low, high)
        return action.tolist()


def self_test(policy: Policy) -> int:
    """Return how many recorded answers are not reproduced."""
    tolerance, wrong = policy.facts["tolerance"], 0
    for observation, expected in policy.facts["golden"]:
        found, wanted = np.asarray(policy.act(observation)), np.asarray(expected)
        near = found.shape == wanted.shape and np.abs(found - wanted) <= tolerance * np.maximum(1.0, np.abs(wanted))
        exact = wanted.dtype.kind == "f" or np.array_equal(found, wanted)
        wrong += not (exact and np.all(near))
    return wrong


def main(arguments: list[str]) -> int:
    """Answer the observations on the standard input, or test."""
    policy = Policy()
    if arguments == ["--self-test"]:
        wrong, n = self_test(policy), len(policy.facts["golden"])
        sys.stdout.write(f"{n - wrong} of {n} recorded answers reproduced\n")
        return 1 if wrong else 0
    if arguments:
        sys.stderr.write("usage: run.py [--self-test] < observations.jsonl\n")
        return 2
    for line in sys.stdin:
        sys.stdout.write(json.dumps(policy.act(json.loads(line))) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
