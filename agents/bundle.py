"""Policy bundles: a trained policy with all that serving, auditing and monitoring it need.

A bundle is a folder, or a `model.tar.gz` of one, with a few files:

- ``manifest.json``: schema version, policy kind and config, observation and action space, environment,
  lineage, metrics, type and shape of every array, size and sha256 of every file, golden vectors with their
  tolerance, and a digest of all that, which names the bundle. Of a policy with a memory the config says its shapes,
  and the golden vectors are the steps of one episode, in their order;
- ``arrays.npz``: the numbers of a tabular policy or a bandit;
- ``model.onnx``: the network of a deep one.

Nothing is unpickled and nothing is extracted. Loading checks names, sizes, hashes, shapes and values, and
then that the policy reproduces its golden vectors: choices exactly; continuous actions, probabilities and
log-probabilities to the tolerance the manifest states, because processors round in different ways.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import Space, spaces
from pydantic import ValidationError

from policylab.agents import bundle_arrays
from policylab.agents.bundle_archive import pack, read_files
from policylab.agents.bundle_manifest import READABLE_VERSIONS, SCHEMA_VERSION, GoldenVector, Lineage, Manifest
from policylab.agents.onnx_policy import MODEL
from policylab.agents.policy import DiscretePolicy, Policy, StoredPolicy, policy_from
from policylab.agents.recurrent_policy import RecurrentPolicy, in_episode
from policylab.agents.space_json import space_from_json, space_to_json, value_from_json, value_to_json
from policylab.errors import BundleError, MissingExtraError, UserError, plain
from policylab.files import content_hash, write_atomic

__all__ = ["Bundle", "Lineage", "Manifest", "load_bundle", "pack", "write_bundle"]

N_GOLDEN = 16
MAX_GOLDEN_NUMBERS = 100_000
"""In all golden observations together; large images have fewer of them, but two."""
MAX_MANIFEST_BYTES = 64 * 2**20
MANIFEST = "manifest.json"
ARRAYS = "arrays.npz"
KNOWN = {MANIFEST, ARRAYS, MODEL}


@dataclasses.dataclass(frozen=True, slots=True)
class Bundle:
    """A verified policy with its manifest and spaces."""

    policy: Policy
    manifest: Manifest
    observation_space: Space[Any]
    action_space: Space[Any]

    @property
    def digest(self) -> str:
        """The sha256 that names this bundle: equal digests mean equal content."""
        return self.manifest.digest


def write_bundle(
    folder: Path,
    policy: StoredPolicy,
    *,
    env: gym.Env[Any, Any],
    lineage: Lineage,
    metrics: Mapping[str, Any],
) -> Bundle:
    """Write ``policy`` as a bundle folder and return it as loaded from there.

    Args:
        folder: created if needed; an older bundle in it is replaced.
        policy: what to store.
        env: the environment it was trained for; it is reset and stepped at random for golden observations.
        lineage: where the policy came from.
        metrics: JSON values by name, such as the confirmed return with its interval.

    Raises:
        BundleError: the policy, the spaces or the metrics cannot be stored, or ``folder`` holds other files.
        StorageError: a write failed.
    """
    folder = Path(folder)
    foreign = {entry.name for entry in folder.iterdir()} - KNOWN if folder.is_dir() else set()
    if foreign:
        raise BundleError(f"{folder} holds {sorted(foreign)[0]!r}, which is no part of a bundle; use another folder")
    arrays, contents = policy.arrays(), policy.files()
    if arrays:
        contents = {**contents, ARRAYS: bundle_arrays.dump(arrays)}
    try:
        golden = _golden_vectors(policy, env)
        facts: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "policy": {"kind": policy.kind, "config": policy.config()},
            "observation_space": space_to_json(env.observation_space),
            "action_space": space_to_json(env.action_space),
            "environment": _environment(env),
            "lineage": lineage.model_dump(mode="json"),
            "metrics": dict(metrics),
            "arrays": {name: entry.model_dump(mode="json") for name, entry in bundle_arrays.describe(arrays).items()},
            "files": {
                name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                for name, content in contents.items()
            },
            "tolerance": policy.tolerance,
            "golden": golden,
        }
        manifest = _rendered({**facts, "digest": content_hash(facts)})
    except (TypeError, ValueError) as error:
        raise BundleError(f"{folder}: the manifest must be JSON without NaN or infinity, but {error}") from error
    for name, content in contents.items():
        write_atomic(folder / name, content)
    write_atomic(folder / MANIFEST, manifest)
    for name in KNOWN - {MANIFEST, *contents}:
        (folder / name).unlink(missing_ok=True)  # of an older bundle of another kind
    return load_bundle(folder, memory=True)


def load_bundle(path: Path, *, memory: bool = False) -> Bundle:
    """Return the verified bundle in the folder or archive ``path``.

    Args:
        path: of the bundle.
        memory: whether the caller carries the memory of a policy that has one from step to step of an episode.

    Raises:
        BundleError: it is truncated, altered, foreign or hostile; the message says which file and why. Or the policy
            has a memory and the caller carries none.
        MissingExtraError: the policy's kind needs a package that is not installed.
    """
    try:
        files = read_files(Path(path))
        manifest = _read_manifest(files)
        _check_files(files, manifest)
        arrays = bundle_arrays.load(files[ARRAYS], manifest.arrays) if ARRAYS in files else {}
        others = {name: content for name, content in files.items() if name not in (MANIFEST, ARRAYS)}
        policy = policy_from(manifest.policy.kind, manifest.policy.config, arrays=arrays, files=others)
        observation_space = space_from_json(manifest.observation_space)
        action_space = space_from_json(manifest.action_space)
        bundle = Bundle(policy, manifest, observation_space, action_space)
        playing = in_episode(policy)
        for number, golden in enumerate(manifest.golden):
            _check_golden(bundle, golden, number=number, playing=playing)
    except MissingExtraError:
        raise
    except UserError as error:
        raise BundleError(f"{path} is refused as a policy bundle: {plain(str(error))}") from error
    if isinstance(policy, RecurrentPolicy) and not memory:
        raise BundleError(
            f"{path}: the policy has a memory, which only its evaluation, `policylab record` and endpoints with "
            "sessions carry from step to step; train a network without `lstm` for anything else"
        )
    return bundle


def _environment(env: gym.Env[Any, Any]) -> dict[str, Any]:
    if env.spec is None:
        raise BundleError("the environment has no spec; make it with gymnasium.make, so that the bundle can name it")
    return {
        "id": env.spec.id,
        "version": env.spec.version,
        "kwargs": {name: value for name, value in env.spec.kwargs.items() if name != "render_mode"},
        "max_episode_steps": env.spec.max_episode_steps,
        "gymnasium_version": gym.__version__,
    }


def _golden_observations(env: gym.Env[Any, Any]) -> list[Any]:
    """Return up to `N_GOLDEN` different observations, as JSON, from a random walk of fixed seed."""
    found: dict[str, Any] = {}
    wanted = min(N_GOLDEN, max(2, MAX_GOLDEN_NUMBERS // max(1, spaces.flatdim(env.observation_space))))
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    for _ in range(20 * N_GOLDEN):
        value = value_to_json(env.observation_space, observation)
        found.setdefault(repr(value), value)
        if len(found) == wanted:
            break
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            observation, _ = env.reset()
    return list(found.values())


def _golden_vectors(policy: Policy, env: gym.Env[Any, Any]) -> list[dict[str, Any]]:
    playing, found = in_episode(policy), []
    for observation in _golden_observations(env):
        raw = value_from_json(env.observation_space, observation)
        facts, action = _answer(playing, raw, action=None, listed=isinstance(env.action_space, spaces.Discrete))
        found.append({"observation": observation, "action": value_to_json(env.action_space, action), **facts})
    return found


def _answer(playing: Any, observation: Any, *, action: Any, listed: bool) -> tuple[dict[str, Any], Any]:
    """Return how likely actions are (of ``action``, if it is given), and the deterministic action, of one step.

    A policy in an episode goes on with every question, so both are asked of a copy of where it stands.
    """
    asked = copy.copy(playing)
    chosen = playing.act(observation)
    return _likelihood(asked, observation, action=chosen if action is None else action, listed=listed), chosen


def _likelihood(policy: Any, observation: Any, *, action: Any, listed: bool) -> dict[str, Any]:
    """Return the probabilities of all actions where they can be listed, else the log-probability of one."""
    if listed:
        choosing: DiscretePolicy = policy
        return {"probabilities": choosing.probabilities(observation).tolist()}
    return {"log_probability": policy.log_probability(observation, action)}


def _rendered(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _read_manifest(files: Mapping[str, bytes]) -> Manifest:
    if MANIFEST not in files:
        raise BundleError(f"it has no {MANIFEST}; give a bundle folder or a model.tar.gz with the files at its top")
    if len(files[MANIFEST]) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{MANIFEST} exceeds {MAX_MANIFEST_BYTES // 2**20} MiB; it is no policy bundle")
    try:
        facts = json.loads(files[MANIFEST], parse_constant=_refuse_constant)
        rendered = _rendered(facts).encode()
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{MANIFEST} is not strict JSON: {str(error)[:80]}; copy the bundle again") from error
    if not isinstance(facts, dict) or "schema_version" not in facts:
        raise BundleError(f"{MANIFEST} has no schema_version; it is not the manifest of a policy bundle")
    if facts["schema_version"] not in READABLE_VERSIONS:
        raise BundleError(
            f"{MANIFEST} has schema version {str(facts['schema_version'])[:20]}, this policylab reads up to version "
            f"{SCHEMA_VERSION}; install the policylab that wrote it"
        )
    try:
        manifest = Manifest.model_validate(facts)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise BundleError(f"{MANIFEST}: {'.'.join(map(str, first['loc']))[:80]}: {first['msg']}") from error
    undigested = {name: value for name, value in facts.items() if name != "digest"}
    if rendered != files[MANIFEST] or content_hash(undigested) != manifest.digest:
        raise BundleError(f"{MANIFEST} was altered: its digest does not match; copy the bundle again")
    return manifest


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _check_files(files: Mapping[str, bytes], manifest: Manifest) -> None:
    if manifest.arrays and ARRAYS not in manifest.files:
        raise BundleError(f"{MANIFEST} does not list {ARRAYS}")
    for name in sorted(set(files) ^ {*manifest.files, MANIFEST}):
        if name in files:
            raise BundleError(f"file {name!r} is not listed in {MANIFEST}; remove it")
        raise BundleError(f"file {name[:100]!r} is listed in {MANIFEST} but missing; copy the bundle again")
    for name, entry in manifest.files.items():
        if len(files[name]) != entry.size:
            raise BundleError(f"{name} has {len(files[name])} bytes, {MANIFEST} says {entry.size}; copy it again")
        if hashlib.sha256(files[name]).hexdigest() != entry.sha256:
            raise BundleError(f"{name} was altered: its sha256 is not the one in {MANIFEST}; copy it again")


def _check_golden(bundle: Bundle, golden: GoldenVector, *, number: int, playing: Any) -> None:
    observation = value_from_json(bundle.observation_space, golden.observation)
    expected = value_from_json(bundle.action_space, golden.action)
    listed = golden.probabilities is not None
    likelihood, action = _answer(playing, observation, action=expected, listed=listed)
    probabilities = likelihood.get("probabilities", [])
    if listed and isinstance(bundle.action_space, spaces.Discrete) and len(probabilities) != bundle.action_space.n:
        raise BundleError(f"the policy has {len(probabilities)} actions, the environment {bundle.action_space.n}")
    told = {name: value for name in likelihood if (value := getattr(golden, name)) is not None}
    tolerance = bundle.manifest.tolerance
    if told.keys() != likelihood.keys() or not (
        _close(action, expected, tolerance=tolerance)
        and all(_close(likelihood[name], value, tolerance=tolerance) for name, value in told.items())
    ):
        raise BundleError(
            f"golden vector {number} is not reproduced: action {str(value_to_json(bundle.action_space, action))[:40]} "
            f"instead of {str(golden.action)[:40]}; the bundle was made by other code, train or export it again"
        )


def _close(found: Any, expected: Any, *, tolerance: float) -> bool:
    """Return whether whole numbers are equal, and others within the tolerance, relative to the larger of 1 and them."""
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape or expected.dtype.kind not in "iufb":
        return False
    if expected.dtype.kind != "f":
        return bool((found == expected).all())
    return bool((np.abs(found - expected) <= tolerance * np.maximum(1.0, np.abs(expected))).all())
