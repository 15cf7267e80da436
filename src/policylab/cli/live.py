"""What a terminal shows while an experiment runs: a search's leaders, then the progress of the runs."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from policylab.cli.output import configuration_text, progress_bar
from policylab.experiments.report.study_style import steps
from policylab.experiments.runner import Observer
from policylab.experiments.schema import ExperimentConfig
from policylab.experiments.standing import Standing, saved_by_stopping, standings
from policylab.launchers import Progress
from policylab.tuning.decisions import Configuration
from policylab.tuning.history import History

LOOK_S = 0.4
"""Pause between two looks at a study; looking costs the time of an interval per leader."""

MAX_LEADERS = 10
SPEED_SHARE = 0.01
"""Share of the planned steps before the time left is told: the first runs wait for the workers to start."""

BAR_WIDTH = 40
OTHER_LINES = 9
"""Lines of the display that are no leaders."""


@contextlib.contextmanager
def watch(config: ExperimentConfig, *, planned_steps: Callable[[], int | None], quiet: bool) -> Iterator[Observer]:
    """Show on a terminal's standard error how an experiment goes on; silent off a terminal or if ``quiet``.

    Args:
        config: the experiment.
        planned_steps: returns the environment steps the search will probably use; asked only when they are shown.
        quiet: show nothing.
    """
    if quiet or not sys.stderr.isatty():
        yield Observer()
        return
    with contextlib.ExitStack() as shown:
        active: dict[str, Callable[[Any], None]] = {}

        def only(name: str, make: Callable[[], contextlib.AbstractContextManager[Any]]) -> Callable[[Any], None]:
            if name not in active:  # the terminal has room for one live region at a time
                shown.close()
                active.clear()
                active[name] = shown.enter_context(make())
            return active[name]

        def study(history: History) -> None:
            only("study", lambda: study_table(config, planned_steps=planned_steps()))(history)

        def runs(progress: Sequence[Progress]) -> None:
            what = "confirming" if config.search else "training"
            total = len(progress) * config.budget.steps
            only("runs", lambda: progress_bar(what, total_steps=total, n_runs=len(progress)))(progress)

        yield Observer(runs=runs, study=study)


@contextlib.contextmanager
def study_table(config: ExperimentConfig, *, planned_steps: int | None) -> Iterator[Callable[[History], None]]:
    """Show the leaders of a search and its budget; yields what is to be told the history."""
    console = Console(stderr=True)
    picture = Picture(
        config, planned_steps=planned_steps, n_leaders=max(1, min(MAX_LEADERS, console.height - OTHER_LINES))
    )
    with Live(get_renderable=picture.render, console=console, refresh_per_second=2, transient=True):
        yield picture.look


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """What is shown of a history, taken at one moment: the display is drawn by another thread."""

    leaders: Sequence[tuple[Standing, Configuration, int | None]]
    tried: int
    running: int
    failed: int
    spent: int
    saved_by_stopping: int
    saved_by_resuming: int
    planned: int | None


class Picture:
    """A search as a terminal shows it.

    Args:
        config: an experiment with a search.
        planned_steps: environment steps the search will probably use, unless its clock pays for fewer.
        n_leaders: rows of the table.
        clock: seconds; for tests.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        *,
        planned_steps: int | None,
        n_leaders: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert config.search is not None
        self._config = config
        self._search = config.search
        self._planned = planned_steps
        self._n_leaders = n_leaders
        self._clock = clock
        self._started = clock()
        self._looked = -LOOK_S
        self._first_spent: int | None = None
        self._cells: dict[tuple[float, ...], str] = {}
        self._snapshot: Snapshot | None = None

    def look(self, history: History) -> None:
        """Take in the history, unless that was done a moment ago."""
        now = self._clock()
        if self._snapshot is not None and now - self._looked < LOOK_S:
            return
        self._looked = now
        if self._first_spent is None:
            self._first_spent = history.spent
        ranked = standings(history)[: self._n_leaders]
        self._snapshot = Snapshot(
            leaders=[
                (one, self._ordered(history.trials[one.trial].configuration), history.trials[one.trial].parent)
                for one in ranked
                if one.values
            ],
            tried=len(history.trials),
            running=history.running,
            failed=sum(trial.failed for trial in history.trials.values()),
            spent=history.spent,
            saved_by_stopping=saved_by_stopping(history),
            saved_by_resuming=history.saved,
            planned=min(filter(None, (self._planned, history.paid_by_clock)), default=None),
        )

    def _ordered(self, configuration: Configuration) -> Configuration:
        """Return a configuration in the order of the space; a log read back has its own."""
        return {path: configuration[path] for path in self._search.space.paths if path in configuration}

    def render(self) -> RenderableType:
        """Return what to draw now."""
        shown = self._snapshot
        if shown is None:
            return Text("searching ...")
        search = self._search
        title = f"{self._config.name}: {search.searcher.kind} search, {search.scheduler.kind} scheduler"
        return Group(Text(title, style="bold"), self._table(shown), self._bar(shown), *self._lines(shown))

    def _table(self, shown: Snapshot) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
        table.add_column("trial", justify="right")
        table.add_column(f"{self._search.metric} ({self._search.mode})", no_wrap=True)
        table.add_column("seeds", justify="right")
        table.add_column("steps", justify="right")
        table.add_column("configuration", no_wrap=True, overflow="ellipsis", ratio=1)
        for place, (one, configuration, parent) in enumerate(shown.leaders):
            running = "*" if one.running else " "
            table.add_row(
                f"{_named(one.trial, parent)}{running}",
                self._value(one),
                str(len(one.values)),
                steps(one.resource),
                configuration_text(configuration),
                style="red" if one.failed else "bold" if place == 0 else None,
            )
        return table

    def _value(self, one: Standing) -> str:
        """Return a leader's mean with its interval, which takes too long to be computed at every look."""
        key = tuple(one.values.values())
        if key not in self._cells:
            interval = one.interval(sign=self._search.sign)
            ends = "" if interval is None or interval.low is None else f" [{interval.low:.4g}, {interval.high:.4g}]"
            self._cells[key] = f"{self._search.sign * one.mean:.4g}{ends}"
        return self._cells[key]

    def _bar(self, shown: Snapshot) -> RenderableType:
        if not shown.planned:
            return Text("")
        share = min(1.0, shown.spent / shown.planned)
        row = Table.grid(padding=(0, 1, 0, 0))
        row.add_row(ProgressBar(total=1.0, completed=share, width=BAR_WIDTH), f"{share:.0%}")
        return row

    def _lines(self, shown: Snapshot) -> list[Text]:
        limit = f" of {self._search.limits.trials:,}" if self._search.limits.trials else ""
        planned = f" of about {steps(shown.planned)}" if shown.planned else ""
        failed = f", {shown.failed} failed" if shown.failed else ""
        elapsed = self._clock() - self._started
        lines = [
            f"configurations {shown.tried:,}{limit}, {shown.running} running (*){failed}",
            f"steps {steps(shown.spent)}{planned}; saved {steps(shown.saved_by_stopping)} by stopping, "
            f"{steps(shown.saved_by_resuming)} by resuming",
            f"elapsed {_clock(elapsed)}{self._left(shown, elapsed_s=elapsed)}",
        ]
        return [Text(line, no_wrap=True, overflow="ellipsis") for line in lines]

    def _left(self, shown: Snapshot, *, elapsed_s: float) -> str:
        """Return how long the search will go on, from the steps planned and the speed of this session."""
        done = shown.spent - (self._first_spent or 0)
        if not shown.planned or done < SPEED_SHARE * shown.planned:
            return ""
        return f", about {_clock(max(0.0, (shown.planned - shown.spent) * elapsed_s / done))} left"


def _named(trial: int, parent: int | None) -> str:
    """Return the number of a trial, of a fork with its parent's.

    >>> _named(7, None), _named(12, 7)
    ('7', '12 < 7')
    """
    return str(trial) if parent is None else f"{trial} < {parent}"


def _clock(seconds: float) -> str:
    """Return seconds as hours, minutes and seconds: 0:07, 12:30, 1:02:03."""
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest_s:02}" if hours else f"{minutes}:{rest_s:02}"
