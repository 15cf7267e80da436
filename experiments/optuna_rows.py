"""The rows of Optuna's tables that hold trials, replaced in one transaction.

Optuna's own interface writes one value per transaction and refuses to touch a finished trial, which one more seed or a
confirmed value does change. Reading them back is Optuna's business alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial


def replace_trials(
    storage: RDBStorage, study: str, *, trials: Sequence[FrozenTrial], surplus: Iterable[int] = ()
) -> None:
    """Write ``trials`` into a study, each over the one with its number; a trial keeps its id and when it began.

    Args:
        storage: holds the study.
        study: its name.
        trials: with numbers.
        surplus: numbers of trials to delete.
    """
    from optuna.storages._rdb import models
    from sqlalchemy import delete, insert, select
    from sqlalchemy.orm import Session

    study_id = storage.get_study_id_from_name(study)
    surplus = list(surplus)
    with Session(storage.engine) as session, session.begin():
        query = select(models.TrialModel).where(models.TrialModel.study_id == study_id)
        held: dict[int, Any] = {row.number: row for row in session.scalars(query)}  # type: ignore[misc]
        replaced = [number for number in (*surplus, *(trial.number for trial in trials)) if number in held]
        for table in _tables():
            session.execute(delete(table).where(table.trial_id.in_([held[number].trial_id for number in replaced])))
        for number in surplus:
            session.delete(held.pop(number))
        for trial in trials:
            row = held.setdefault(trial.number, models.TrialModel(study_id=study_id, number=trial.number))
            row.datetime_start = row.datetime_start or trial.datetime_start
            row.state, row.datetime_complete = trial.state, trial.datetime_complete
            session.add(row)
        session.flush()
        for table, rows in _rows(trials, ids={number: row.trial_id for number, row in held.items()}).items():
            if rows:
                session.execute(insert(table), rows)


def _tables() -> tuple[Any, ...]:
    """Return the tables of params, values, intermediate values and user attributes."""
    from optuna.storages._rdb import models

    return (
        models.TrialParamModel,
        models.TrialValueModel,
        models.TrialIntermediateValueModel,
        models.TrialUserAttributeModel,
    )


def _rows(trials: Sequence[FrozenTrial], *, ids: Mapping[int, int]) -> dict[Any, list[dict[str, Any]]]:
    from optuna.distributions import distribution_to_json

    params, values, curves, attributes = _tables()
    found: dict[Any, list[dict[str, Any]]] = {params: [], values: [], curves: [], attributes: []}
    for trial in trials:
        key = {"trial_id": ids[trial.number]}
        for name, value in trial.params.items():
            spread = trial.distributions[name]
            stored = {"param_value": spread.to_internal_repr(value), "distribution_json": distribution_to_json(spread)}
            found[params].append({**key, "param_name": name, **stored})
        for objective, value in enumerate(trial.values or ()):
            number, kind = values.value_to_stored_repr(value)
            found[values].append({**key, "objective": objective, "value": number, "value_type": kind})
        for step, value in trial.intermediate_values.items():
            number, kind = curves.intermediate_value_to_stored_repr(value)
            typed = {"intermediate_value": number, "intermediate_value_type": kind}
            found[curves].append({**key, "step": step, **typed})
        for name, value in trial.user_attrs.items():
            found[attributes].append({**key, "key": name, "value_json": json.dumps(value)})
    return found
