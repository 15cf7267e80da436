"""`TabularAgent`: what every tabular learner shares; a subclass adds settings and one update."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from policylab.agents import array_checkpoint
from policylab.agents.agent import Report
from policylab.agents.checkpoint_facts import FactsFormat
from policylab.agents.exploration import PARAMETERS, counts_choices
from policylab.agents.features import make_encoder
from policylab.agents.schedules import INVERSE_VISITS, InverseVisits, Schedule, value_at
from policylab.agents.settings import TabularSettings
from policylab.agents.tabular.core import Algorithm, Core, Size, make_core
from policylab.agents.tabular.plain import PlainExecution
from policylab.agents.tabular.progress import EPISODES, METRICS, STEPS, Progress, begin, metrics_of
from policylab.agents.tabular.world import World, world_of
from policylab.agents.value_policies import TabularPolicy
from policylab.envs.cursor import EpisodeCursor
from policylab.envs.enumeration import table_for
from policylab.envs.learned_reward import training_env
from policylab.envs.settings import EnvSettings
from policylab.errors import CheckpointError, RunError, UserError
from policylab.files import canonical_json
from policylab.seeding import generator, generator_state, set_generator_state

CHECKPOINT = FactsFormat("policylab tabular agent", 1, "a tabular agent")


class Execution(Protocol):
    """Takes environment steps for an algorithm."""

    def run(self, progress: Progress, steps: Sequence[int]) -> Iterator[tuple[Progress, NDArray[np.float64]]]:
        """Take each number of ``steps`` in turn and learn from each step.

        Yields what was measured and the action values after each; it may be past the last by then.
        """
        ...

    def position(self) -> dict[str, Any]:
        """Return where the environment is: arrays and JSON values."""
        ...

    def restore(self, position: dict[str, Any]) -> None:
        """Put the environment back to a `position`."""
        ...


class TabularAgent:
    """A learner of action values over the features of one environment.

    Args:
        settings: the algorithm's own settings.
        env_settings: the environment.
        seed: root of the run's two random streams, "environment" and "agent".
        budget_steps: the full budget, over which schedules stretch whatever `learn` is called with.

    Attributes:
        execution_report: {"kind": "compiled" or "plain", "reason": why}.

    Raises:
        EnvironmentRuleError: the observations or actions are none a table can hold.
        UserError: the settings ask for what this algorithm or environment cannot do.
    """

    Settings: ClassVar[type[TabularSettings]]
    online: ClassVar[bool] = False
    exact_resume: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False
    metrics: ClassVar[frozenset[str]] = METRICS | {f"train/{name}" for name in ("learning_rate", *PARAMETERS.values())}
    compiled: ClassVar[bool] = True
    """Whether the algorithm has a compiled form."""
    linear: ClassVar[bool] = True
    """Whether it learns with several active features per state (tile coding), not only with tables."""

    def __init__(self, settings: TabularSettings, env_settings: EnvSettings, *, seed: int, budget_steps: int) -> None:
        self.settings = settings
        world = world_of(env_settings)
        self.encoder = make_encoder(settings.features, world.observations)
        self.size = Size(self.encoder.n_features, world.n_actions, self.encoder.n_active, world.max_episode_steps)
        self._check(settings)
        core = make_core(settings, self.size, budget_steps=budget_steps, rng=generator(seed, "agent"))
        self._algorithm: Algorithm = self.algorithm(settings, core, size=self.size)
        self._progress = begin(self.size.n_features)
        self.execution_report = self._report_execution(world)
        self._execution = self._make_execution(world, generator(seed, "environment"), settings=env_settings)
        self._identity = {
            "agent": settings.model_dump(mode="json", exclude={"execution"}),
            "environment": env_settings.model_dump(mode="json"),
            "execution": self.execution_report["kind"],
        }

    @classmethod
    def make(cls, settings: Any, env_settings: EnvSettings, *, seed: int, budget_steps: int) -> Self:
        """Return a fresh agent."""
        return cls(settings, env_settings, seed=seed, budget_steps=budget_steps)

    @staticmethod
    def algorithm(settings: Any, core: Core, *, size: Size) -> Algorithm:
        """Return the algorithm's tuple over ``core``; given by each subclass."""
        raise NotImplementedError

    @property
    def q(self) -> NDArray[np.float64]:
        """The weight table, shape (n_features, n_actions): Q(s, a) itself where one feature is active."""
        return self._algorithm.core.q

    @property
    def steps(self) -> int:
        """Environment steps taken so far."""
        return int(self._progress.clock[STEPS])

    def learn(self, steps: int, *, pause: Callable[[], None] | None = None) -> Report:
        """Take ``steps`` more environment steps and learn from each; it never pauses.

        Raises:
            RunError: action values are no longer finite.
        """
        if steps < 0:
            raise UserError(f"learn needs a number of steps of at least 0, got {steps}")
        [(report, _)] = self._learn([steps])
        return report

    def learn_each(self, steps: Sequence[int]) -> Iterator[tuple[Report, TabularPolicy]]:
        """See `policylab.agents.agent.Stepwise`; an agent that learns by compiled code takes all steps in one call.

        Raises:
            RunError: action values are no longer finite.
        """
        return ((report, TabularPolicy(q, self.encoder)) for report, q in self._learn(steps))

    def _learn(self, steps: Sequence[int]) -> Iterator[tuple[Report, NDArray[np.float64]]]:
        for n_steps, (progress, q) in zip(steps, self._execution.run(self._progress, steps), strict=True):
            taken, episodes = int(progress.clock[STEPS]), int(progress.clock[EPISODES])
            if not np.isfinite(q).all():
                raise RunError(
                    f"{self.settings.kind} diverged: an action value is no longer finite after step {taken}; "
                    "lower learning_rate, or use discount < 1"
                )
            yield Report(taken, episodes, {**metrics_of(progress, n_steps), **self._scheduled(taken)}), q

    def _scheduled(self, time: int) -> dict[str, float]:
        """Return the learning rate and exploration parameter of the next step, where they depend on time alone."""
        core, parameter = self._algorithm.core, PARAMETERS.get(self.settings.exploration.kind)
        found: list[tuple[str, Schedule]] = [("learning_rate", core.learning_rate)]
        if parameter:
            found.append((parameter, core.exploration.parameter))
        return {
            f"train/{name}": value_at(schedule, time, 0) for name, schedule in found if schedule.kind != INVERSE_VISITS
        }

    def policy(self) -> TabularPolicy:
        """Return the greedy policy learned so far."""
        return TabularPolicy(self.q, self.encoder)

    def save(self, folder: Path) -> None:
        """Write the whole state: ``state.npz`` and ``state.json``."""
        position = self._execution.position()
        arrays = {name: array for name, array in position.items() if isinstance(array, np.ndarray)}
        stored = {f"position.{name}": array for name, array in arrays.items()}
        stored["rng"] = generator_state(self._algorithm.core.rng)
        facts = {
            "identity": self._identity,
            "steps": int(self._progress.clock[STEPS]),
            "episodes": int(self._progress.clock[EPISODES]),
            "position": {name: fact for name, fact in position.items() if name not in arrays},
        }
        array_checkpoint.write(folder, {**self._arrays(), **stored}, facts=facts, form=CHECKPOINT)

    def restore(self, folder: Path, *, retuned: bool = False) -> None:
        """Continue from what `save` wrote.

        Args:
            folder: the checkpoint.
            retuned: let it have been saved with other values of the ``mutable`` settings; those of this agent hold.

        Raises:
            CheckpointError: the checkpoint is damaged, or belongs to another agent or environment.
        """
        arrays, facts = array_checkpoint.read(folder, form=CHECKPOINT)
        mutable = type(self.settings).mutable if retuned else frozenset()
        theirs, ours = _without(facts.get("identity"), mutable), _without(self._identity, mutable)
        if theirs != ours:
            raise CheckpointError(
                f"{folder} was saved by another agent: {_difference(theirs, ours)}; "
                "restore it with the settings it was saved with"
            )
        self._execution.restore({**facts["position"], **_prefixed(arrays, "position.")})
        for name, target in self._arrays().items():
            array_checkpoint.fill(target, arrays, name=name, folder=folder)
        words = generator_state(self._algorithm.core.rng)
        array_checkpoint.fill(words, arrays, name="rng", folder=folder)
        set_generator_state(self._algorithm.core.rng, words)

    def close(self) -> None:
        """Nothing runs outside of this process."""

    def _arrays(self) -> dict[str, NDArray[Any]]:
        """Return every array of the state, by name, to be saved or filled."""
        return {**_arrays_in(self._algorithm), **_arrays_in(self._progress, "progress.")}

    def _check(self, settings: TabularSettings) -> None:
        if self.size.n_active == 1:
            return
        reason = (
            f"`{settings.kind}` learns tables only"
            if not self.linear
            else "an `inverse_visits` learning rate counts the visits of single features"
            if isinstance(settings.learning_rate, InverseVisits)
            else "this exploration counts the visits of single features"
            if counts_choices(settings.exploration)
            else None
        )
        if reason:
            raise UserError(
                f"{reason}, but features `{settings.features.kind}` activate {self.size.n_active} at a time; "
                "use features `bins`, or other settings of the agent"
            )

    def _report_execution(self, world: World) -> dict[str, str]:
        obstacle = self._obstacle(world)
        asked = self.settings.execution
        if asked == "compiled" and obstacle:
            raise UserError(f"`execution: compiled` is impossible: {obstacle}; use `execution: auto`")
        if asked == "plain":
            return {"kind": "plain", "reason": "asked for by `execution: plain`"}
        if obstacle:
            return {"kind": "plain", "reason": obstacle}
        return {"kind": "compiled", "reason": "the environment has an exact table"}

    def _obstacle(self, world: World) -> str | None:
        """Return why the compiled execution is impossible, or None."""
        if not self.compiled:
            return f"{self.settings.kind} has no compiled form"
        if self.settings.features.kind not in ("auto", "index"):
            return f"features `{self.settings.features.kind}` are computed from observations, not read from a table"
        return world.no_table

    def _make_execution(self, world: World, rng: np.random.Generator, *, settings: EnvSettings) -> Execution:
        if self.execution_report["kind"] == "plain":
            cursor = EpisodeCursor(training_env(settings), rng)
            return PlainExecution(self._algorithm, cursor, encoder=self.encoder, first_action=world.first_action)
        from policylab.agents.tabular.compiled import CompiledExecution  # Numba is slow to import

        mdp = table_for(settings)
        assert mdp is not None, "what stands in the way of it was looked for"
        return CompiledExecution(self._algorithm, mdp, rng=rng)


def _arrays_in(part: Any, prefix: str = "") -> dict[str, NDArray[Any]]:
    """Return the arrays of a tuple and of the tuples in it, by dotted name."""
    found: dict[str, NDArray[Any]] = {}
    for name, field in part._asdict().items():
        if isinstance(field, np.ndarray):
            found[prefix + name] = field
        elif hasattr(field, "_asdict"):
            found.update(_arrays_in(field, f"{prefix}{name}."))
    return found


def _prefixed(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _without(identity: Any, names: frozenset[str]) -> Any:
    """Return an identity without some settings of the agent."""
    if not names or not isinstance(identity, dict) or not isinstance(identity.get("agent"), dict):
        return identity
    return {**identity, "agent": {name: value for name, value in identity["agent"].items() if name not in names}}


def _difference(theirs: Any, ours: Any, place: str = "") -> str:  # noqa: PLR0917 - two sides and where they are
    """Name the first part in which two identities, nested mappings, differ."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for name in sorted(theirs.keys() | ours.keys()):
            if theirs.get(name) != ours.get(name):
                return _difference(theirs.get(name), ours.get(name), f"{place}.{name}" if place else name)
    return f"{place} {canonical_json(theirs)[:100]} instead of {canonical_json(ours)[:100]}"
