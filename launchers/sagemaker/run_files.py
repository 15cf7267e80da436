"""A run's folder between this machine and the prefix that its training jobs see as their checkpoint folder.

There it lies as snapshots (`policylab.launchers.sagemaker.run_snapshot`), beside a copy of the reports. `prepare` is
for before a job begins, `follow` for while it runs, `pull` for after it has ended.

A run may have been carried further than the ``stop_at_steps`` asked for here, by a job of an earlier session: then
`pull` brings the reports up to it and leaves the rest.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from policylab.errors import RunDirectoryError, StorageError
from policylab.files import write_atomic
from policylab.launchers.sagemaker.object_store import NoSuchObjectError, ObjectStore, relative_name
from policylab.launchers.sagemaker.run_snapshot import restore_snapshot, save_snapshot
from policylab.launchers.snapshots import travelling_files

SPEC, REPORTS, RESULT, CHECKPOINTS = "spec.json", "reports.jsonl", "result.json", "checkpoints"

logger = logging.getLogger(__name__)


class RunFiles:
    """One run's folder here and its prefix there.

    Args:
        store: where the prefix lies.
        prefix: an S3 URI.
        folder: the run's folder, with its spec.json.
    """

    def __init__(self, store: ObjectStore, prefix: str, *, folder: Path) -> None:
        self._store = store
        self._prefix = prefix.rstrip("/")
        self._folder = folder
        self._reports_etag = ""
        self._pulled: tuple[str, bool] | None = None

    def prepare(self) -> None:
        """Make the prefix what the next job is to go on from: the further one of both.

        Raises:
            StorageError: the store refused.
        """
        held = self._snapshots()
        here = max((int(path.name) for path in (self._folder / CHECKPOINTS).glob("[0-9]*")), default=0)
        if here <= (self._reported_there() if held else 0):
            return
        with tempfile.TemporaryDirectory(prefix="policylab-") as scratch:
            saved = save_snapshot(self._folder, into=Path(scratch))
            number = int(held[-1].partition("-")[0]) + 1 if held else 1
            name = f"{number:06d}-{saved.name.partition('-')[2]}"
            self._store.put_file(saved, f"{self._prefix}/{name}")
        self._store.put_file(self._folder / REPORTS, f"{self._prefix}/{REPORTS}")
        for name in held:
            self._store.delete(f"{self._prefix}/{name}")

    def follow(self) -> bool:
        """Bring the reports, if they have changed; return whether they have."""
        uri = f"{self._prefix}/{REPORTS}"
        etag = next((one.etag for one in self._store.list(uri) if one.uri == uri), "")
        if not etag or etag == self._reports_etag:
            return False
        self._write_reports(self._store.get_bytes(uri))
        self._reports_etag = etag
        return True

    def pull(self) -> bool:
        """Bring everything, the result last; return whether the run has got as far as its spec asks for.

        Raises:
            StorageError: the store refused, or holds damaged files.
        """
        names = self._snapshots()
        if self._pulled is None or not names or self._pulled[0] != names[-1]:
            with tempfile.TemporaryDirectory(dir=self._folder, prefix=".pulling-") as scratch:
                found = self._restored(names, Path(scratch))
                done = found is not None and self._take(found)
            self._pulled = (names[-1] if names else "", done)
        return self._pulled[1]

    def _restored(self, names: Sequence[str], scratch: Path) -> Path | None:
        """Return the run's folder of the newest snapshot that is whole."""
        for name in reversed(names):
            source, target = scratch / name.removesuffix(".tar"), scratch / "run"
            self._store.get_file(f"{self._prefix}/{name}", source / name)
            try:
                restore_snapshot(source, into=target)
            except RunDirectoryError as error:
                logger.warning("%s/%s: %s", self._prefix, name, error)
                shutil.rmtree(source)
                continue
            return target
        return None

    def _take(self, found: Path) -> bool:
        """Replace what is here by what was found; return whether the run has got as far as its spec asks for."""
        if (found / REPORTS).exists():
            self._write_reports((found / REPORTS).read_bytes())
        here, there = (self._stop_at(folder / SPEC) for folder in (self._folder, found))
        if there > here:
            return True
        for name in travelling_files(found):
            if "/" not in name and name not in (SPEC, REPORTS, RESULT):
                (found / name).replace(self._folder / name)
        shutil.rmtree(self._folder / CHECKPOINTS, ignore_errors=True)
        if (found / CHECKPOINTS).exists():
            (found / CHECKPOINTS).replace(self._folder / CHECKPOINTS)
        if there == here and (found / RESULT).exists():
            (found / RESULT).replace(self._folder / RESULT)
        return (self._folder / RESULT).exists()

    def _stop_at(self, spec: Path) -> int:
        try:
            return int(json.loads(spec.read_bytes())["stop_at_steps"])
        except (OSError, ValueError, KeyError, TypeError):
            raise StorageError(f"{self._prefix}: a snapshot without a spec.json; delete the prefix") from None

    def _write_reports(self, content: bytes) -> None:
        """Write the whole lines up to the last mark that was asked for."""
        stop_at, kept = self._stop_at(self._folder / SPEC), []
        for line in content[: content.rfind(b"\n") + 1].splitlines(keepends=True):
            try:
                if json.loads(line)["step"] > stop_at:
                    break
            except (ValueError, KeyError, TypeError):
                raise StorageError(f"{self._prefix}/{REPORTS}: damaged; delete the prefix") from None
            kept.append(line)
        write_atomic(self._folder / REPORTS, b"".join(kept))

    def _reported_there(self) -> int:
        try:
            lines = self._store.get_bytes(f"{self._prefix}/{REPORTS}").splitlines()
            return int(json.loads(lines[-1])["step"]) if lines else 0
        except NoSuchObjectError:
            return 0
        except (ValueError, KeyError, TypeError):
            raise StorageError(f"{self._prefix}/{REPORTS}: damaged; delete the prefix") from None

    def _snapshots(self) -> list[str]:
        """Return the names of the snapshots, the newest last."""
        names = (relative_name(one.uri, self._prefix) for one in self._store.list(f"{self._prefix}/"))
        return sorted(name for name in names if name.endswith(".tar") and "/" not in name and name[:6].isdigit())
