"""Ranks that follow a history are those one would make anew, whatever has happened in between."""

from hypothesis import given
from hypothesis import strategies as st

from policylab.tuning.decisions import Resume, Start, Stop
from policylab.tuning.history import History, RunState
from policylab.tuning.schedulers.evidence import Ranks
from policylab.tuning.schedulers.hyperband import rank

LEVEL, FULL = 2, 4
STEPS = st.lists(
    st.tuples(
        st.integers(0, 7), st.sampled_from(["report", "end", "fail", "stop", "resume"]), st.floats(allow_nan=True)
    ),
    max_size=60,
)


def apply(history, number, *, action, value):
    """Do something to a trial that can be done to it, starting it if need be."""
    if number not in history.trials:
        number = len(history.trials)
        history.decide(Start(number, {}, 0, LEVEL, ""))
    run = history.trials[number].runs[0]
    if run.state is RunState.RUNNING and action == "report":
        history.report(number, 0, resource=run.resource + 1, value=value)
    elif run.state is RunState.RUNNING and action in ("end", "fail"):
        history.end(number, 0, error="failed" if action == "fail" else None)
    elif run.state in (RunState.RUNNING, RunState.PAUSED) and action == "stop":
        history.decide(Stop(number, None, ""))
    elif run.state is RunState.PAUSED and action == "resume":
        history.decide(Resume(number, 0, FULL, ""))


@given(steps=STEPS, looks=st.sets(st.integers(0, 60)))
def test_following_equals_ranking_anew(steps, looks):
    history = History(max_resource=FULL)
    ranks = Ranks(LEVEL, seed=0, belongs=lambda trial: trial % 3 != 1)
    for index, (number, action, value) in enumerate(steps):
        apply(history, number, action=action, value=value)
        running = [run for _, run in history.runs() if run.state is RunState.RUNNING]
        assert sorted(map(id, history.under_way.values())) == sorted(map(id, running))
        if index not in looks:
            continue
        ranks.follow(history)
        anew = rank([trial for trial in history.trials.values() if trial.id % 3 != 1], LEVEL)
        waiting = [trial for trial in anew if trial.runs[0].state is RunState.PAUSED and trial.runs[0].until == LEVEL]
        assert len(ranks) == len(anew)
        expected = (anew.index(waiting[0]) + 1, waiting[0]) if waiting else None
        assert ranks.best_waiting(history) == expected
