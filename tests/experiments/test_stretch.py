"""How many marks a run passes before it writes."""

import pytest

from policylab.experiments.checkpoints import newest_checkpoint
from policylab.experiments.execute import execute
from policylab.experiments.rundir import create_run
from policylab.experiments.schema import ExperimentConfig
from policylab.experiments.stretch import Pace

EXPERIMENT = {
    "name": "stretches",
    "env": {"id": "FrozenLake-v1"},
    "agent": {"kind": "q_learning"},
    "budget": {"steps": 400},
    "seeds": {"tune": 1, "confirm": 0},
    "evaluation": {"marks": 4},
    "tracking": {"kind": "none"},
}


def told(tmp_path, **changes):
    """Return what a run that may pass four marks told: the steps together, and the checkpoint there was then."""
    config = ExperimentConfig.model_validate({**EXPERIMENT, **changes})
    folder = create_run(config, parent=tmp_path).folder(config.specs()[0])
    pace, found = Pace(), []
    pace.n_marks = 4

    def tell(rows):
        newest = newest_checkpoint(folder)
        found.append(([row.step for row in rows], newest and int(newest.name)))

    execute(folder, on_rows=tell, pace=pace)
    return found


def test_an_exactly_valued_tabular_run_passes_several_marks(tmp_path):
    assert told(tmp_path) == [([100, 200, 300, 400], None)]


def test_a_run_that_saves_whenever_it_can_saves_at_every_mark(tmp_path):
    saved = [([100], None), ([200], 100), ([300], 200), ([400], 300)]
    assert told(tmp_path, checkpoint_every_s=0) == saved


@pytest.mark.parametrize(
    "changes",
    [
        {"evaluation": {"marks": 4, "kind": "rollout", "episodes": 1, "final_episodes": 1}},
        {"env": {"id": "policylab/Bandit-v0"}, "agent": {"kind": "bandit_ucb1"}, "budget": {"steps": 4000}},
    ],
    ids=["played", "judged while it learns"],
)
def test_others_write_every_mark(tmp_path, changes):
    assert [len(steps) for steps, _ in told(tmp_path, **changes)] == [1, 1, 1, 1]
