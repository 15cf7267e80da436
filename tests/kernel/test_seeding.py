"""Streams are named, independent of each other, and the same everywhere."""

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from policylab.seeding import generator, generator_state, run_seed, set_generator_state, stream


def test_tuning_and_confirmation_seeds_are_disjoint():
    tune = {run_seed(0, role="tune", index=i) for i in range(1000)}
    confirm = {run_seed(0, role="confirm", index=i) for i in range(1000)}
    assert len(tune) == len(confirm) == 1000
    assert not tune & confirm


def test_paths_do_not_collide_by_concatenation_or_type():
    states = [
        tuple(stream(0, *path).generate_state(4)) for path in [("a", "bc"), ("ab", "c"), ("abc",), ("1",), (1,), ()]
    ]
    assert len(set(states)) == len(states)


def test_streams_are_equal_in_another_process_with_another_hash_seed():
    code = "from policylab.seeding import generator; print(generator(3, 'environment', 2).random(3).tolist())"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "77"}
    )
    assert run.stdout.strip() == str(generator(3, "environment", 2).random(3).tolist())


@given(st.integers(0, 2**63 - 1), st.integers(0, 50))
def test_a_generator_put_back_repeats_its_numbers(seed, skip):
    rng = generator(seed, "agent")
    rng.random(skip)
    words = generator_state(rng)
    expected = rng.random(5)
    other = generator(0, "other")
    set_generator_state(other, words)
    assert np.array_equal(other.random(5), expected)


def test_the_state_words_are_a_copy():
    rng = generator(0, "agent")
    words = generator_state(rng)
    rng.random()
    assert not np.array_equal(words, generator_state(rng))
