"""The compiled loop's parts: its random stream, its table, many pairs at once, and its cache on disk."""

import json
import os
import subprocess
import sys

import numba
import numpy as np
import pytest

from policylab.agents.build import make_agent
from policylab.agents.rule import draw
from policylab.agents.tabular.cache import cache_folder
from policylab.agents.tabular.compiled import train, train_many
from policylab.agents.tabular.compiled_table import GUIDE, first_state, sample_outcome, sampled_table
from policylab.agents.tabular.monte_carlo import MonteCarloSettings
from policylab.agents.tabular.prioritized_sweeping import PrioritizedSweepingSettings
from policylab.agents.tabular.q_learning import QLearningSettings
from policylab.agents.tabular.sarsa import SarsaSettings
from policylab.envs.enumeration import table_of
from policylab.envs.make import make_env
from policylab.envs.settings import EnvSettings
from policylab.envs.table import TabularMDP
from policylab.errors import UserError
from policylab.seeding import generator, generator_state

LAKE = EnvSettings(id="FrozenLake-v1")
WARM = {"exploration": {"kind": "epsilon_greedy", "epsilon": 0.3}}


@numba.njit
def drawn(words, n):
    numbers = np.empty(n)
    for place in range(n):
        numbers[place] = draw(words)
    return numbers


@numba.njit
def first_states(table, words, n):
    return [first_state(table, words) for _ in range(n)]


@numba.njit
def outcomes(table, words, n):
    return [sample_outcome(table, 0, 0, words) for _ in range(n)]


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_the_compiled_stream_is_numpy_s(seed):
    rng = generator(seed, "agent")
    words = generator_state(rng)
    assert np.array_equal(drawn(words, 10_000), rng.random(10_000))
    assert np.array_equal(words, generator_state(rng))


@pytest.mark.parametrize(
    "initial",
    [
        [1.0],
        [0.0, 0.0, 1.0, 0.0],
        [0.1] * 10,
        [1e-12, 0.5, 0.0, 0.5 - 1e-12],
        np.random.default_rng(0).dirichlet(np.full(3000, 0.05)).tolist(),
    ],
)
def test_first_states_are_those_of_a_linear_search(initial):
    initial = np.asarray(initial)
    n = len(initial)
    P = {s: {0: [(1.0, s, 0.0, True)]} for s in range(n)}
    table = sampled_table(TabularMDP.from_outcomes(P, initial))
    rng = generator(3, "environment")
    words = generator_state(rng)
    expected = [int(np.argmax(np.cumsum(initial) > u)) for u in rng.random(5000)]
    assert first_states(table, words, 5000) == expected
    assert GUIDE & (GUIDE - 1) == 0, "i / GUIDE must be exact"


def test_probabilities_that_fall_short_of_one_pick_the_first_outcome_as_gymnasium_does():
    short = 1.0 - 5e-10
    table = sampled_table(
        TabularMDP.from_outcomes({0: {0: [(0.25, 0, 0.0, False), (short - 0.25, 0, 0.0, True)]}}, [1.0])
    )
    words = generator_state(generator(0, "environment"))
    assert set(outcomes(table, words, 1000)) == {0, 1}
    always_last = np.array([2**64 - 1, 0, 0, 0], dtype=np.uint64)  # the next draw is the largest below 1
    assert outcomes(table, always_last.copy(), 1) == [0]
    assert drawn(always_last, 1)[0] > short


def test_many_pairs_equal_their_agents_whatever_the_threads():
    mdp = table_of(make_env(LAKE))
    pairs = [
        (settings, seed)
        for settings in (QLearningSettings(**WARM), SarsaSettings(discount=0.9), MonteCarloSettings())
        for seed in (0, 1)
    ]
    many = train_many(mdp, pairs, steps=3000, record_episodes=20)
    for place, (settings, seed) in enumerate(pairs):
        agent = make_agent(settings, LAKE, seed=seed, budget_steps=3000)
        report = agent.learn(3000)
        assert np.array_equal(many.q[place], agent.q)
        assert (many.steps[place], many.episodes[place]) == (report.steps, report.episodes)
    one_thread = train_many(mdp, pairs, steps=3000, record_episodes=20, n_threads=1)
    assert np.array_equal(many.q, one_thread.q)
    assert np.array_equal(many.returns, one_thread.returns)


def test_recorded_episodes_are_the_first_ones():
    mdp = table_of(make_env(EnvSettings(id="CliffWalking-v1", max_episode_steps=30)))
    many = train_many(mdp, [(QLearningSettings(**WARM), 4)], steps=10_000, episodes=12, record_episodes=15)
    assert many.episodes[0] == 12
    assert many.steps[0] == many.lengths.sum()
    assert np.isnan(many.returns[0]).tolist() == [False] * 12 + [True] * 3
    assert (many.lengths[0, :12] > 0).all()
    assert (many.lengths[0, :12] <= 30).all()
    assert (many.returns[0, :12] <= -many.lengths[0, :12]).all()  # every step costs 1, the cliff 100
    assert set(many.first_actions[0, :12]) <= {0, 1, 2, 3}
    assert (many.first_actions[0, 12:] == -1).all()


def test_no_pairs_are_no_work():
    assert train_many(table_of(make_env(LAKE)), [], steps=10).q.shape == (0, 16, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (PrioritizedSweepingSettings(), "prioritized_sweeping has none"),
        (QLearningSettings(execution="plain"), "execution `plain`"),
        (QLearningSettings(features={"kind": "tiles"}), "features `tiles` needs make_agent"),
    ],
)
def test_what_cannot_be_compiled_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        train_many(table_of(make_env(LAKE)), [(settings, 0)], steps=10)


def test_the_loop_holds_no_lock_that_other_threads_need():
    assert train.targetoptions["nogil"]


PROBE = """
import json, sys
import numpy as np
from policylab.agents.build import make_agent
from policylab.agents.tabular.compiled import train
from policylab.envs.settings import EnvSettings
settings = {"kind": "q_learning", "execution": "compiled"}
agent = make_agent(settings, EnvSettings(id="FrozenLake-v1"), seed=0, budget_steps=50)
agent.learn(50)
stats = train.stats
print(json.dumps({"hits": sum(stats.cache_hits.values()), "misses": sum(stats.cache_misses.values())}))
"""


def probe(folder):
    environment = {**os.environ, "POLICYLAB_CACHE_DIR": str(folder)}
    found = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, env=environment, check=True)
    return json.loads(found.stdout)


def test_a_second_process_starts_warm(tmp_path):
    assert probe(tmp_path) == {"hits": 0, "misses": 1}
    assert probe(tmp_path) == {"hits": 1, "misses": 0}


def test_the_cache_depends_on_the_sources_and_can_be_moved(tmp_path, monkeypatch):
    monkeypatch.setenv("POLICYLAB_CACHE_DIR", str(tmp_path))
    cache_folder.cache_clear()
    first = cache_folder()
    monkeypatch.setattr("policylab.agents.tabular.cache._sources_hash", lambda: "other")
    cache_folder.cache_clear()
    assert cache_folder() == tmp_path / "numba" / "other" != first
    cache_folder.cache_clear()


def test_a_cache_that_cannot_be_written_falls_back(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("POLICYLAB_CACHE_DIR", str(tmp_path / "file"))
    cache_folder.cache_clear()
    folder = cache_folder()
    assert folder.is_dir()
    assert tmp_path not in folder.parents
    cache_folder.cache_clear()
