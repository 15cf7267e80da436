"""Commands that describe what there is: list, show, schema."""

from __future__ import annotations

import argparse
import inspect
from typing import Any

from policylab.cli.output import columns, emit
from policylab.errors import UnknownNameError, did_you_mean


def _envs() -> dict[str, str]:
    import gymnasium

    from policylab.envs.optional import SHOWCASE

    specs = gymnasium.registry.values()
    registered = {spec.id: str(spec.entry_point) for spec in specs if isinstance(spec.entry_point, str)}
    return {**registered, **{name: text for name, (_, text) in SHOWCASE.items()}}


def _env_rows() -> list[dict[str, Any]]:
    """Return every environment: whether it is installed, the extra that brings it and the command that installs it."""
    from policylab.envs.optional import install_command, provider_of

    rows = []
    for name, summary in sorted(_envs().items()):
        provider = provider_of(name, entry_point=summary)
        installed, install = install_command(name, entry_point=summary)
        rows.append(
            {
                "name": name,
                "summary": summary,
                "installed": installed,
                "extra": None if provider is None else provider.extra,
                "install": install,
            }
        )
    return rows


def _agents() -> dict[str, str]:
    from policylab.agents.registry import AGENTS

    return {name: _summary(AGENTS.load(name)) for name in AGENTS.names()}


def _configs() -> dict[str, str]:
    from policylab.experiments.schema import load_experiment, shipped_configs

    return {name: load_experiment(str(path)).description for name, path in shipped_configs().items()}


_LISTS = {"envs": _envs, "agents": _agents, "configs": _configs}


def _summary(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def list_names(arguments: argparse.Namespace) -> int:
    """List environments, agents or shipped configs."""
    if arguments.concept == "envs":
        rows = _env_rows()
        emit(arguments, rows, text=lambda: columns([[row["name"], _state(row), row["summary"]] for row in rows]))
        return 0
    entries = _LISTS[arguments.concept]()
    document = [{"name": name, "summary": summary} for name, summary in sorted(entries.items())]
    emit(arguments, document, text=lambda: columns([[row["name"], row["summary"]] for row in document]))
    return 0


def _state(row: dict[str, Any]) -> str:
    return "installed" if row["installed"] else str(row["install"])


def show(arguments: argparse.Namespace) -> int:
    """Describe an environment, agent or shipped config."""
    name: str = arguments.name
    for concept, describe in (("configs", _show_config), ("agents", _show_agent), ("envs", _show_env)):
        if name in _LISTS[concept]():
            document, text = describe(name)
            emit(arguments, document, text=lambda text=text: text)  # type: ignore[misc]
            return 0
    known = [known for names in _LISTS.values() for known in names()]
    hint = did_you_mean(name, known) or "; see `policylab list envs`, `list agents` and `list configs`"
    raise UnknownNameError(f"no environment, agent or config is called '{name}'{hint}")


def _show_config(name: str) -> tuple[dict[str, Any], str]:
    from policylab.experiments.schema import load_experiment, shipped_configs

    path = shipped_configs()[name]
    document = {"name": name, "path": str(path), "config": load_experiment(name).model_dump(mode="json")}
    return document, path.read_text()


def _show_agent(name: str) -> tuple[dict[str, Any], str]:
    from policylab.agents.registry import AGENTS

    agent = AGENTS.load(name)
    schema = agent.Settings.model_json_schema()
    rows = [
        [field, "required" if "default" not in entry else f"default {entry['default']}", entry.get("description", "")]
        for field, entry in schema["properties"].items()
        if field != "kind"
    ]
    text = f"{name}\n\n{inspect.getdoc(agent)}\n\nsettings:\n{columns(rows)}"
    return {"name": name, "doc": inspect.getdoc(agent), "settings": schema}, text


def _show_env(name: str) -> tuple[dict[str, Any], str]:
    import gymnasium

    from policylab.envs.baselines import RANDOM, baseline_names
    from policylab.envs.guards import findings
    from policylab.envs.make import make_env, resolve
    from policylab.envs.optional import provider_of
    from policylab.envs.settings import EnvSettings

    provider = provider_of(name, entry_point=_envs()[name])
    if provider is not None and not provider.installed:
        text = f"{name}: {_envs()[name]}; not installed: {provider.install}"
        return {"name": name, "installed": False, "extra": provider.extra, "install": provider.install}, text
    settings = EnvSettings(id=name)
    resolved, env = resolve(settings), make_env(settings)
    document: dict[str, Any] = {
        "name": name,
        "installed": True,
        "extra": None if provider is None else provider.extra,
        "install": None if provider is None else provider.install,
        "entry_point": str(gymnasium.spec(resolved.id).entry_point),
        "observation_space": str(env.observation_space),
        "action_space": str(env.action_space),
        "max_episode_steps": resolved.max_episode_steps,
        "baselines": [*baseline_names(resolved.id), RANDOM],
        "findings": [found.message for found in findings(settings)],
        "doc": inspect.getdoc(env.unwrapped),
    }
    env.close()
    rows = [[key, str(document[key])] for key in ("observation_space", "action_space", "max_episode_steps")]
    rows.append(["baselines", ", ".join(document["baselines"])])
    notes = "".join(f"warning: {text}\n" for text in document["findings"])
    return document, f"{name}\n{columns(rows)}\n{notes}\n{document['doc']}"


def schema(arguments: argparse.Namespace) -> int:
    """Print the JSON Schema of experiment files or endpoint files."""
    import json

    from policylab.config import Settings
    from policylab.deployment.endpoint import EndpointConfig
    from policylab.experiments.schema import ExperimentConfig

    model: type[Settings] = ExperimentConfig if arguments.kind == "experiment" else EndpointConfig
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    emit(arguments, document, text=lambda: json.dumps(document, indent=1))
    return 0
