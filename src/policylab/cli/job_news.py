"""What a person sees while emulated jobs run: their states, and what their hosts print."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from policylab.launchers.sagemaker.emulator import EmulatedSageMaker


@contextlib.contextmanager
def screen(*, quiet: bool) -> Iterator[Callable[[Sequence[str], str], None]]:
    """Yield a function that shows new lines and, on a terminal, the present state below them; on standard error."""
    if quiet or not sys.stderr.isatty():
        yield lambda lines, state: _write([] if quiet else lines)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    with console.status("Starting") as status:

        def show(lines: Sequence[str], state: str) -> None:
            for line in lines:
                console.print(Text(line))
            status.update(Text(state))

        yield show


def _write(lines: Sequence[str]) -> None:
    sys.stderr.write("".join(f"{line}\n" for line in lines))


class JobNews:
    """What is new about one job since the last look.

    Args:
        service: has the job.
        name: the job's.
        prefix: begins every line.
    """

    def __init__(self, service: EmulatedSageMaker, name: str, *, prefix: str) -> None:
        self._service = service
        self._name = name
        self._prefix = prefix
        self._shown = 0
        self._read: dict[str, int] = {}
        self._state = "Starting"
        self.ended = False

    def lines(self) -> list[str]:
        """Return new states and new lines of the logs, which belong to the last time that the job trained."""
        self.ended = not self._service.is_at_work(self._name)
        record = self._service.describe_training_job(TrainingJobName=self._name)
        news: list[dict[str, Any]] = record["SecondaryStatusTransitions"][self._shown :]
        self._shown += len(news)
        self._state = record["SecondaryStatus"]
        states = [f"{self._prefix}{one['Status']}: {one['StatusMessage']}" for one in news]
        trained = max((place for place, one in enumerate(news, start=1) if one["Status"] == "Training"), default=0)
        return [*states[:trained], *self._log_lines(), *states[trained:]]

    def _log_lines(self) -> Iterator[str]:
        for host, path in self._service.log_files(self._name).items():
            with path.open("rb") as file:
                file.seek(self._read.get(host, 0))
                content = file.read()
            whole = len(content) if self.ended else content.rfind(b"\n") + 1
            self._read[host] = self._read.get(host, 0) + whole
            for line in content[:whole].decode(errors="replace").splitlines():
                yield f"{self._prefix}{host} | {line}"

    def state(self) -> str:
        """Return the job's state in a few words."""
        return f"{self._prefix}{self._state}"

    def tell(self, order: str) -> None:
        """Tell the job to ``stop`` or to ``hurry``, unless it has ended."""
        from policylab.launchers.sagemaker.emulator.orders import give_order

        if not self.ended:
            give_order(self._service.root / "jobs" / self._name, order)
