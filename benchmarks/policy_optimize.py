"""What smaller policies cost: every method of `policylab policy optimize`, side by side on the same bundles.

    python -m benchmarks.policy_optimize [--bundle DIR ...] [--episodes 200] [--max-loss RETURN]

Without bundles: a network that acts optimally on FrozenLake, and one that balances CartPole, a 64x64 network that
imitates the linear rule "push to where the pole leans". Rows give bytes, the median time of one decision (source and
result timed in turns, observation by observation) and the return lost on the same fresh episodes, or exactly.
"""

import argparse
import math
import tempfile
from pathlib import Path

import gymnasium as gym
import numpy as np

from policylab.agents.action_distributions import Categorical
from policylab.agents.bundle import Lineage, load_bundle, write_bundle
from policylab.agents.onnx_policy import OnnxPolicy, OnnxSettings
from policylab.deployment.optimization import METHODS, OptimizeSettings, optimize
from policylab.deployment.optimization.small_network import SmallNetwork
from policylab.envs.enumeration import table_for
from policylab.envs.planners import value_iteration
from policylab.envs.settings import EnvSettings
from policylab.errors import PolicylabError
from policylab.seeding import generator


def pole_bundle(folder):
    rng = generator(0, "pole")
    x = rng.normal(scale=[1.0, 1.0, 0.1, 1.0], size=(4_000, 4))
    push = 0.1 * x[:, 0] + 0.3 * x[:, 1] + 4.0 * x[:, 2] + x[:, 3]
    right = 1.0 / (1.0 + np.exp(-4.0 * push))
    network = SmallNetwork(x, [64, 64, 2], rng=rng)
    network.fit(x, np.stack([1.0 - right, right], axis=1), classes=True, rng=rng)
    settings = OnnxSettings(inputs={"observation": ()}, distribution=Categorical(n_actions=2))
    policy = OnnxPolicy(network.model("observation"), settings)
    return write_bundle(folder, policy, env=gym.make("CartPole-v1"), lineage=Lineage(), metrics={})


def lake_bundle(folder):
    from onnx import TensorProto, helper, numpy_helper

    values = value_iteration(table_for(EnvSettings(id="FrozenLake-v1"), mean_rewards=True), discount=0.99).action_values
    inner = generator(0, "lake").normal(size=(16, 64))
    outer = np.linalg.lstsq(np.tanh(inner), 20.0 * values, rcond=None)[0]
    numbers = {"inner": inner, "inner_bias": np.zeros(64), "outer": outer, "outer_bias": np.zeros(4)}
    arrays = {name: array.astype(np.float32) for name, array in numbers.items()}
    arrays |= {"depth": np.array(16), "levels": np.array([0, 1], np.float32)}
    nodes = [
        helper.make_node("OneHot", ["observation", "depth", "levels"], ["state"]),
        helper.make_node("Gemm", ["state", "inner", "inner_bias"], ["sums"]),
        helper.make_node("Tanh", ["sums"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "outer", "outer_bias"], ["outputs"]),
    ]
    ports = [
        helper.make_tensor_value_info("observation", TensorProto.INT64, ["n"]),
        helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["n", 4]),
    ]
    initializers = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "policy", ports[:1], ports[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    settings = OnnxSettings(inputs={"observation": ()}, distribution=Categorical(n_actions=4))
    policy = OnnxPolicy(model.SerializeToString(), settings)
    return write_bundle(folder, policy, env=gym.make("FrozenLake-v1"), lineage=Lineage(), metrics={})


def row(source, how, *, folder, arguments):
    allowed = math.inf if arguments.max_loss is None else arguments.max_loss
    settings = OptimizeSettings(how=how, episodes=arguments.episodes, max_loss=min(allowed, 1e9))
    try:
        found = optimize(source, folder / how, settings=settings)
    except PolicylabError as error:
        return f"| {how} | {str(error).partition(';')[0]} | | | |"
    before, after, loss = found.before, found.after, found.loss
    ends = "exact" if loss.exact else f"[{loss.low:+.3g}, {loss.high:+.3g}]"
    return (
        f"| {how} | {before.n_bytes:,} -> {after.n_bytes:,} | {before.act_us / after.act_us:.2f} | "
        f"{loss.optimized:.4g} | {loss.value:+.3g} {ends} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", action="append", default=[])
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--max-loss", type=float)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        sources = [load_bundle(Path(path)) for path in arguments.bundle]
        sources = sources or [lake_bundle(folder / "lake"), pole_bundle(folder / "pole")]
        for number, source in enumerate(sources):
            print(f"{source.manifest.environment.id}, {source.manifest.policy.kind}\n")
            print("| method | bytes | times faster | return | return lost |\n|---|---|---|---|---|")
            for how in METHODS:
                print(row(source, how, folder=folder / f"made{number}", arguments=arguments), flush=True)
            print()


if __name__ == "__main__":
    main()
