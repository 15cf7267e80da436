"""What an alarm may do: put segments of the traffic behind it before people, who say which behaviour they prefer."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from policylab.agents.bundle import load_bundle
from policylab.config import Settings
from policylab.envs.reward_model import RewardModel
from policylab.errors import UserError
from policylab.experiments.report.text import counted
from policylab.monitoring.alarms.alarm import Verdict
from policylab.monitoring.labels.segments import cut as segments_in
from policylab.monitoring.labels.selection import select
from policylab.monitoring.labels.store import LabelFolder
from policylab.monitoring.ope.captured_log import only_endpoint
from policylab.monitoring.outcomes.period import offset
from policylab.monitoring.schedule.cut import Part, cut


def _offset(text: str) -> str:
    try:
        offset(text)
    except UserError as error:
        raise ValueError(str(error)) from None
    return text


class QueueLabels(Settings):
    """Chooses pairs of segments of the window's episodes, and of some time before its end, for `labels serve`."""

    kind: Literal["label"]
    labels: Path = Field(description="folder of `policylab labels`, relative to this file")
    data: Path = Field(description="capture folder of the endpoint, relative to this file")
    policy: Path = Field(description="bundle of the task, relative to this file")
    since: Annotated[str, AfterValidator(_offset)] = Field(
        default="PT1H", description="episodes that began so long before the end of the window, or in it"
    )
    pairs: int = Field(default=50, ge=1, description="to choose")
    segment_steps: int = Field(default=25, ge=1, description="steps of a segment")
    model: Path | None = Field(
        default=None, description="reward model whose disagreement counts, relative to this file; default: random ones"
    )

    def act(self, verdict: Verdict) -> str:
        """Do it; return what was done.

        Raises:
            UserError: there is too little traffic, or it is damaged.
            StorageError: the pairs cannot be written.
        """
        start, end = (datetime.fromisoformat(text) for text in (verdict.start_utc, verdict.end_utc))
        part = Part(
            verdict.endpoint or only_endpoint(self.data), None, min(start, end - offset(self.since)), end,
            over=max(end, datetime.now(UTC)),
        )  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="policylab-label-") as folder:
            n, _ = cut(self.data, Path(folder), part=part)
            if not n:
                raise UserError(f"{self.data} holds no episode that began in {self.since} before {verdict.end_utc}")
            segments = segments_in(Path(folder), length=self.segment_steps, bundle=load_bundle(self.policy))
        model = None if self.model is None else RewardModel.load(self.model)
        chosen = select(segments, model, n_pairs=self.pairs, seed=0, name=verdict.end_utc)
        LabelFolder(self.labels).add(segments, chosen)
        return f"{counted(len(chosen), 'pairs')} of {counted(len(segments), 'segments')} wait in {self.labels}"
