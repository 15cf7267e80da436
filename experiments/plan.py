"""What an experiment will do and cost, and what is suspicious about it, without training."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from policylab.agents.build import make_agent
from policylab.config import Document
from policylab.envs.guards import findings
from policylab.envs.make import make_env, resolve
from policylab.errors import UserError
from policylab.experiments.evaluation import evaluation_kind, exact_evaluator
from policylab.experiments.schema import ExperimentConfig
from policylab.experiments.search import configured, probes, raise_in_space, refusal, with_default
from policylab.experiments.search_plan import search_plan
from policylab.experiments.statistics import seed_warning


def plan(config: ExperimentConfig, *, document: Document | None = None, root: Path = Path("runs")) -> dict[str, Any]:
    """Build everything a run needs once, and return what running it means.

    Args:
        config: the experiment.
        document: what it was read from, so that a message can name the line.
        root: folder whose run directories can be parents of its search.

    Returns:
        {name, config_hash, trials, seeds, runs, steps_per_run, checkpoint_every_s, total_steps, search, environment,
        execution, evaluation, warnings}. With a search, trials, runs and total_steps are what it takes at most, or None
        where no limit says; ``search`` is that of `search_plan`, else None.

    Raises:
        UserError: the environment, agent and settings do not fit together.
    """
    specs = config.specs()
    with _located(document, "env"):
        environment = resolve(config.env)
        make_env(config.env).close()
    with _located(document, "agent"):
        agent = make_agent(specs[0].agent, config.env, seed=specs[0].seed, budget_steps=config.budget.steps)
    with contextlib.closing(agent), _located(document, "evaluation"):
        kind = evaluation_kind(config.evaluation.kind, agent)
        exact = exact_evaluator(config.env, agent.policy, kind=kind) is not None
    _check_built(config, document)
    counts = {"tune": config.seeds.tune, "confirm": config.seeds.confirm}
    with _located(document, "search"):
        search = None if config.search is None else search_plan(config, root=root)
    return {
        "name": config.name,
        "config_hash": config.config_hash,
        "seeds": {**counts, "root": config.seeds.root},
        "steps_per_run": config.budget.steps,
        "checkpoint_every_s": config.checkpoint_every_s,
        **_extent(config, search),
        "search": search,
        "environment": {
            "requested": environment.requested_id,
            "id": environment.id,
            "max_episode_steps": environment.max_episode_steps,
            "limit_source": environment.limit_source,
            "gymnasium": environment.gymnasium_version,
        },
        "execution": dict(agent.execution_report),
        "evaluation": "exact" if exact else "online" if kind == "online" else "rollout",
        "warnings": [*(found.message for found in findings(config.env)), *_seed_warnings(counts)]
        + (search["advice"] if search else []),
    }


def _check_built(config: ExperimentConfig, document: Document | None) -> None:
    """Build the agent with every value that stands for the search space: some mistakes show only then.

    Raises:
        ConfigError: what was refused, one per line at its place.
    """
    if config.search is None:
        return
    space = with_default(config)

    def fault(path: str, value: Any) -> str | None:
        chosen = next((one for one in probes(space, path, value=value) if not refusal(config, one)), None)
        if chosen is None:
            return None
        spec = configured(config, chosen).specs()[0]
        try:
            make_agent(spec.agent, config.env, seed=spec.seed, budget_steps=config.budget.steps).close()
        except UserError as error:
            return str(error).splitlines()[0]
        return None

    raise_in_space(space.check(fault), document or Document({}, {}, config.name))


@contextlib.contextmanager
def _located(document: Document | None, section: str) -> Iterator[None]:
    """Begin the message of a user error with the place of ``section``, or of the setting in it that it quotes."""
    try:
        yield
    except UserError as error:
        if document is None:
            raise
        lines = [_placed(document, section, message=line) for line in str(error).splitlines()]
        raise type(error)("\n".join(lines)) from error


def _placed(document: Document, section: str, *, message: str) -> str:
    """Begin ``message`` with the place of the setting that it begins with or quotes."""
    begins = re.match(rf"({section}(?:\.\w+)*): ", message)
    if begins:
        return f"{document.place(tuple(begins[1].split('.')))}: {message}"
    quoted = (path for path, value in document.leaves(section) if _quotes(message, key=path[-1], value=value))
    path = next(quoted, (section,))
    return f"{document.place(path)}: {'.'.join(map(str, path))}: {message}"


def _quotes(message: str, *, key: str | int, value: Any) -> bool:
    return f"`{key}`" in message or f"'{value}'" in message


def _extent(config: ExperimentConfig, search: dict[str, Any] | None) -> dict[str, int | None]:
    """Return trials, runs and total_steps, at most."""
    if search is None:
        runs = len(config.specs())
        return {"trials": 1, "runs": runs, "total_steps": runs * config.budget.steps}
    trials, steps = search["trials_at_most"], search["steps_at_most"]
    return {
        "trials": trials,
        "runs": None if trials is None else trials * search["seeds_at_most"] + 2 * config.seeds.confirm,
        "total_steps": None if steps is None else steps + search["confirm_steps"],
    }


def _seed_warnings(counts: dict[str, int]) -> list[str]:
    found = [f"seeds.{role}: {text}" for role, count in counts.items() if count and (text := seed_warning(count))]
    if not counts["confirm"]:
        found.append("seeds.confirm is 0: the reported value is the one selected on, which is optimistic")
    return found
