"""Snapshots survive a synchronisation that is cut off anywhere."""

import hashlib
import io
import tarfile
import threading

import pytest

from policylab.errors import RunDirectoryError
from policylab.launchers.sagemaker.run_snapshot import restore_snapshot, save_snapshot


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "checkpoints" / "000000000000100").mkdir(parents=True)
    (folder / "checkpoints" / "000000000000100" / "state.npz").write_bytes(b"first")
    (folder / "reports.jsonl").write_text('{"step": 100}\n')
    (folder / "spec.json").write_text("{}")
    (folder / "run.lock").write_text("")
    (folder / "checkpoints" / ".saving-x").mkdir()
    (folder / "checkpoints" / ".saving-x" / "half").write_text("")
    return folder


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def advance(run, steps):
    old = next((run / "checkpoints").glob("[0-9]*"))
    new = old.with_name(f"{steps:015d}")
    old.rename(new)
    (new / "state.npz").write_bytes(str(steps).encode())
    with (run / "reports.jsonl").open("a") as file:
        file.write(f'{{"step": {steps}}}\n')


def test_a_snapshot_is_the_folder_without_what_belongs_to_the_machine(run, tmp_path):
    save_snapshot(run, into=tmp_path / "kept")
    assert restore_snapshot(tmp_path / "kept", into=tmp_path / "again")
    expected = {name: data for name, data in content(run).items() if "." not in name[0] and ".saving" not in name}
    expected.pop("run.lock")
    assert content(tmp_path / "again") == expected


def test_readers_find_reports_and_result_beside_it(run, tmp_path):
    kept = tmp_path / "kept"
    save_snapshot(run, into=kept)
    assert (kept / "reports.jsonl").read_bytes() == (run / "reports.jsonl").read_bytes()
    assert not (kept / "result.json").exists()
    (run / "result.json").write_text("{}")
    save_snapshot(run, into=kept)
    assert (kept / "result.json").read_text() == "{}"


def test_an_unchanged_folder_is_not_stored_twice_and_two_snapshots_are_kept(run, tmp_path):
    kept = tmp_path / "kept"
    first = save_snapshot(run, into=kept)
    assert save_snapshot(run, into=kept) == first
    for steps in (200, 300, 400):
        advance(run, steps)
        save_snapshot(run, into=kept)
    assert [path.name[:6] for path in sorted(kept.glob("*.tar"))] == ["000003", "000004"]


def test_a_half_uploaded_snapshot_is_passed_over(run, tmp_path):
    kept = tmp_path / "kept"
    save_snapshot(run, into=kept)
    before = content(run)
    advance(run, 200)
    newest = save_snapshot(run, into=kept)
    newest.write_bytes(newest.read_bytes()[:-1000])
    restore_snapshot(kept, into=tmp_path / "again")
    assert content(tmp_path / "again")["reports.jsonl"] == before["reports.jsonl"]


def test_damage_of_all_is_an_error_and_absence_is_a_fresh_start(run, tmp_path):
    kept = tmp_path / "kept"
    assert not restore_snapshot(kept, into=tmp_path / "again")
    save_snapshot(run, into=kept).write_bytes(b"")
    with pytest.raises(RunDirectoryError, match="every snapshot is damaged; delete them"):
        restore_snapshot(kept, into=tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("hostile", ["../outside", "/absolute"])
def test_nothing_is_written_outside(tmp_path, hostile):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(hostile.replace("/absolute", str(tmp_path / "absolute")))
        member.type, member.linkname = (tarfile.SYMTYPE, "/etc") if hostile[0] == "/" else (tarfile.REGTYPE, "")
        archive.addfile(member)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()[:16]
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / f"000001-{digest}.tar").write_bytes(buffer.getvalue())
    with pytest.raises(RunDirectoryError, match="not a snapshot of a run"):
        restore_snapshot(tmp_path / "kept", into=tmp_path / "again")
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "absolute").exists()


def test_a_run_that_writes_meanwhile_never_loses_the_report_of_its_checkpoint(run, tmp_path):
    kept, stop = tmp_path / "kept", threading.Event()

    def train():
        steps = 100
        while not stop.is_set():
            steps += 100
            with (run / "reports.jsonl").open("a") as file:
                file.write(f'{{"step": {steps}}}\n')
            (run / "checkpoints" / f"{steps:015d}").mkdir()
            (run / "checkpoints" / f"{steps:015d}" / "state.npz").write_bytes(str(steps).encode())
            stop.wait(0.02)

    writer = threading.Thread(target=train)
    writer.start()
    try:
        for number in range(10):
            save_snapshot(run, into=kept)
            restore_snapshot(kept, into=tmp_path / str(number))
            again = tmp_path / str(number)
            newest = max(int(path.name) for path in (again / "checkpoints").glob("[0-9]*"))
            assert f'{{"step": {newest}}}' in (again / "reports.jsonl").read_text().splitlines()
    finally:
        stop.set()
        writer.join()
