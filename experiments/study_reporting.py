"""Fills the report's data of a search from the run directory's event log and confirmation runs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from policylab.experiments.failures import study_failures
from policylab.experiments.importances import importances
from policylab.experiments.outcome import FinishedRun, of_role
from policylab.experiments.report.data import Estimate
from policylab.experiments.report.study_data import (
    Axis,
    Ending,
    Importances,
    Improvement,
    Moment,
    StudyData,
    Tried,
    TriedRun,
)
from policylab.experiments.rundir import RunDirectory
from policylab.experiments.schema import ExperimentConfig
from policylab.experiments.search import with_default
from policylab.experiments.standing import schedule_document, standing, standings
from policylab.experiments.study_outcome import Outcome, read_outcome
from policylab.files import read_lines
from policylab.tuning.history import History, Run, RunState, Trial
from policylab.tuning.parameters import Categorical
from policylab.tuning.scheduler import SCHEDULERS, Scheduler
from policylab.tuning.space import Space

NAN = float("nan")


def study_data(run: RunDirectory, runs: Sequence[FinishedRun], *, found: Mapping[str, Any]) -> StudyData:
    """Return what the report shows of the finished search of ``run``.

    Args:
        run: the run directory.
        runs: the winner's runs and the confirmation of winner and default.
        found: the ``search`` part of the result document.
    """
    config, outcome = run.config, read_outcome(run)
    study = course(config, read_lines(run.path / "study" / "events.jsonl"), outcome=outcome)
    return dataclasses.replace(
        study,
        optimism_gap=_gap(found, runs, outcome=outcome),
        default_confirmed=_estimate(found["default_confirmed"]),
        improvement=_improvement(found),
        beats_default=_estimate(found["beats_default"]),
        retried=[(one["error"], one["runs"]) for one in found.get("retried", ())],
    )


def course(config: ExperimentConfig, events: Sequence[Mapping[str, Any]], *, outcome: Outcome) -> StudyData:
    """Return what a report shows of a search before its confirmation.

    Args:
        config: the experiment.
        events: of the study's log.
        outcome: what the study decided.
    """
    settings = config.search
    assert settings is not None
    space = with_default(config)
    horizon = settings.horizon(budget_steps=config.budget.steps, n_seeds=config.seeds.tune)
    scheduler: Scheduler = SCHEDULERS.load(settings.scheduler.kind).make(settings.scheduler, horizon)
    replay = Replay(History(max_resource=config.budget.steps), scheduler=scheduler, sign=settings.sign)
    replay.run(events)
    mattered = importances(replay.history, space) if len(space.paths) > 1 else ""
    return StudyData(
        metric=settings.metric,
        maximise=settings.mode == "max",
        method=f"{settings.searcher.kind} search, {settings.scheduler.kind} scheduler",
        reason=outcome.reason,
        max_resource=config.budget.steps,
        axes=axes(space),
        trials=[replay.tried(trial, space) for trial in replay.history.trials.values()],
        ranking=_ranking(replay.history, outcome),
        moments=replay.moments,
        winner=outcome.winner,
        default=outcome.default if outcome.default in replay.history.trials else None,
        default_configuration=space.default or dict(_own_values(config, space)),
        failed=[(one["error"], one["runs"]) for one in study_failures(replay.history).failed],
        spent=outcome.spent_steps,
        saved_by_resuming=outcome.saved_by_resuming_steps,
        saved_by_stopping=outcome.saved_by_stopping_steps,
        importances=mattered if isinstance(mattered, Importances) else None,
        no_importances=mattered if isinstance(mattered, str) else "",
        schedule=[
            (stage["until_steps"], stage["configuration"])
            for stage in schedule_document(replay.history, outcome.winner) or ()
        ],
        bests=[best.model_dump(mode="json") for best in outcome.bests],
        comparable=outcome.comparable,
    )


class Replay:
    """A study's events applied one by one, with notes of where pieces ended and who led.

    Args:
        history: empty.
        scheduler: says who would have been selected.
        sign: 1 to maximise, -1 to minimise.

    Attributes:
        history: after the events so far.
        moments: one per piece that brought a value.
    """

    def __init__(self, history: History, *, scheduler: Scheduler, sign: float) -> None:
        self.history = history
        self.moments: list[Moment] = []
        self._scheduler = scheduler
        self._sign = sign
        self._levels: dict[tuple[int, int], list[int]] = {}
        self._entered: dict[int, int] = {}

    def run(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Apply all ``events``."""
        for event in events:
            self.history.apply(event)
            if event["event"] == "start":
                self._entered[event["trial"]] = event["until"]
            elif event["event"] == "fork":
                self._entered[event["trial"]] = self._entered[event["parent"]]
            elif event["event"] == "end":
                self._ended(event["trial"], event["seed"])

    def _ended(self, trial: int, seed: int) -> None:
        resource = self.history.trials[trial].runs[seed].resource
        levels = self._levels.setdefault((trial, seed), [])
        if resource > (levels[-1] if levels else 0):
            levels.append(resource)
            now = standing(self.history.trials[trial])
            values = [self._sign * value for value in now.values.values()]
            self.moments.append(Moment(self.history.spent, trial, now.resource, values, leader=self._leader()))

    def _leader(self) -> float:
        best = self._scheduler.best(self.history)
        return NAN if best is None else self._sign * standing(self.history.trials[best]).mean

    def tried(self, trial: Trial, space: Space) -> Tried:
        """Return what became of ``trial``."""
        now = standing(trial)
        interval = now.interval(sign=self._sign)
        ending = _trial_ending(trial, max_resource=self.history.max_resource)
        errors = [run.error for run in trial.runs.values() if run.error]
        return Tried(
            id=trial.id,
            configuration=dict(trial.configuration),
            places=[_place(space, path, configuration=trial.configuration) for path in space.paths],
            runs=[self._tried_run(trial, run) for _, run in sorted(trial.runs.items())],
            estimate=Estimate(
                self._sign * now.mean,
                NAN if interval is None or interval.low is None else interval.low,
                NAN if interval is None or interval.high is None else interval.high,
                len(now.values),
            ),
            resource=now.resource,
            entered=self._entered[trial.id],
            ending=ending,
            reason=errors[0] if errors else trial.stopped or "",
            parent=trial.parent,
            origin=trial.origin,
        )

    def _tried_run(self, trial: Trial, run: Run) -> TriedRun:
        return TriedRun(
            seed=run.seed,
            levels=self._levels.get((trial.id, run.seed), []),
            value=NAN if run.value is None else self._sign * run.value,
            ending=_ending(run, max_resource=self.history.max_resource),
        )


def _ending(run: Run, *, max_resource: int) -> Ending:
    if run.state is RunState.FAILED:
        return "failed"
    if run.resource >= max_resource:
        return "full"
    return {RunState.RUNNING: "running", RunState.PAUSED: "paused"}.get(run.state, "stopped")  # type: ignore[return-value]


def _trial_ending(trial: Trial, *, max_resource: int) -> Ending:
    endings = {_ending(run, max_resource=max_resource) for run in trial.runs.values()}
    if "failed" in endings:
        return "failed"
    if trial.stopped is not None:
        return "stopped"
    order: tuple[Ending, ...] = ("full", "running", "paused", "stopped")
    return next(ending for ending in order if ending in endings)


def axes(space: Space) -> list[Axis]:
    """Return the searched parameters as the report draws them."""
    names = short_names(space.paths)
    return [_axis(space, path, name=names[path]) for path in space.paths]


def _axis(space: Space, path: str, *, name: str) -> Axis:
    parameter = space.parameters[path]
    if isinstance(parameter, Categorical):
        texts = [value if isinstance(value, str) else json.dumps(value) for value in parameter.values]
        return Axis(path, name, "categorical", 0.0, float(parameter.size - 1), texts)
    return Axis(path, name, parameter.scale, float(parameter.low), float(parameter.high))


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Return the paths without the first part where all share it.

    >>> short_names(["agent.learning_rate", "agent.epsilon.end"])
    {'agent.learning_rate': 'learning_rate', 'agent.epsilon.end': 'epsilon.end'}
    """
    shared = len({path.partition(".")[0] for path in paths}) == 1 and all("." in path for path in paths)
    return {path: path.partition(".")[2] if shared else path for path in paths}


def _place(space: Space, path: str, *, configuration: Mapping[str, Any]) -> float | None:
    parameter = space.parameters[path]
    if path not in configuration:
        return None
    if isinstance(parameter, Categorical):
        return float(int(parameter.places([configuration[path]])[0] * parameter.size))
    return float(configuration[path])


def _ranking(history: History, outcome: Outcome) -> list[int]:
    others = (one.trial for one in standings(history) if one.trial != outcome.winner)
    return [outcome.winner, *others]


def _own_values(config: ExperimentConfig, space: Space) -> Iterator[tuple[str, Any]]:
    """Yield the file's own values of the searched parameters, which need not lie in the space."""
    data = config.model_dump(mode="json")
    for path in space.paths:
        value: Any = data
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        value = value["value"] if isinstance(value, dict) and value.get("kind") == "constant" else value
        if value is not None:
            yield path, value


def _gap(found: Mapping[str, Any], runs: Sequence[FinishedRun], *, outcome: Outcome) -> Estimate | None:
    """Return by how much the selected value is better than the confirmed one."""
    if found["optimism_gap"] is None:
        return None
    n_seeds = min(len(of_role(runs, role, trial=outcome.winner)) for role in ("tune", "confirm"))
    return _estimate({"value": found["optimism_gap"], "ci": found["optimism_gap_ci"], "n_seeds": n_seeds})


def _improvement(found: Mapping[str, Any]) -> Improvement | None:
    """Return by how much the winner is better than the default on the confirmation seeds."""
    improvement = found["improvement"]
    if improvement is None:
        return None
    low, high = improvement["ci"] or (NAN, NAN)
    return Improvement(improvement["value"], low, high, improvement["probability"])


def _estimate(interval: Mapping[str, Any] | None) -> Estimate | None:
    if interval is None:
        return None
    low, high = interval["ci"] or (NAN, NAN)
    return Estimate(interval["value"], low, high, interval.get("n_seeds", 0))
