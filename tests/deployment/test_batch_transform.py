"""Batch transform: every record gets the decision that the endpoint would give, in order, or its file gets none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.deployment.conftest import endpoint

from policylab.agents.bundle import load_bundle
from policylab.cli import main
from policylab.deployment.batch_transform import BatchTransform
from policylab.errors import ConfigError, UserError


def transformed(path: Path, bundle: Path, *, out: Path, **sections: Any) -> list[dict[str, Any]]:
    variant = {"name": "a", "bundle": str(bundle), "exploration": False}
    with BatchTransform(endpoint(variant, **sections)) as batch:
        (done,) = batch.run([path], out)
    assert done.error is None
    assert done.output is not None
    lines = done.output.read_text().splitlines()
    assert len(lines) == done.n_records
    return [json.loads(line) for line in lines]


@pytest.fixture
def states(tmp_path: Path) -> Path:
    path = tmp_path / "states.jsonl"
    path.write_text("".join(f"{state % 16}\n" for state in range(500)))
    return path


def test_every_record_gets_the_policys_action_in_order(states: Path, bundles: dict[str, Path], tmp_path: Path) -> None:
    policy = load_bundle(bundles["soft"]).policy
    found = transformed(states, bundles["soft"], out=tmp_path / "out", limits={"batch": 7})
    assert [one["action"] for one in found] == [int(policy.act(state % 16)) for state in range(500)]
    assert len({one["decision_id"] for one in found}) == 500


def test_drawn_actions_are_the_same_at_every_repetition_and_follow_the_policy(
    states: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    def actions(folder: str) -> list[int]:
        with BatchTransform(
            endpoint({"name": "a", "bundle": str(bundles["random"]), "exploration": True}, limits={"remembered_ids": 3})
        ) as batch:
            (done,) = batch.run([states], tmp_path / folder)
        assert done.output is not None
        return [json.loads(line)["action"] for line in done.output.read_text().splitlines()]

    first = actions("first")
    assert actions("again") == first
    assert min(np.bincount(first, minlength=4)) > 80, "125 each are expected"


def test_the_formats_agree(states: Path, bundles: dict[str, Path], tmp_path: Path) -> None:
    observations = [json.loads(line) for line in states.read_text().splitlines()]
    (tmp_path / "states.csv").write_text("".join(f"{one}\n" for one in observations))
    np.save(tmp_path / "states.npy", np.array(observations))
    with BatchTransform(endpoint({"name": "a", "bundle": str(bundles["soft"]), "exploration": False})) as batch:
        done = batch.run([states, tmp_path / "states.csv", tmp_path / "states.npy"], tmp_path / "out")
    lines, csv, array = (one.output for one in done)
    assert lines is not None
    assert csv is not None
    assert array is not None
    expected = [json.loads(line)["action"] for line in lines.read_text().splitlines()]
    assert [int(row.split(",")[0]) for row in csv.read_text().splitlines()] == expected
    assert np.load(array, allow_pickle=False).tolist() == expected


def test_masks_are_kept_and_empty_lines_are_no_records(bundles: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text('\n{"observation": 3, "mask": [false, false, true, true]}\n\n5\n')
    found = transformed(path, bundles["left"], out=tmp_path)
    assert [one["action"] for one in found] != [0, 0]
    assert found[0]["action"] in (2, 3)
    assert found[1]["action"] == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"1\n99\n", r"a\.jsonl:2: 99 is not a whole number from 0 to 15"),
        ("a.jsonl", b"1\n[1, 2]\n", r"a\.jsonl:2: a record is one observation"),
        ("a.jsonl", b'1\n{"observation": 1', r"a\.jsonl:2: the body is no JSON"),
        ("a.jsonl", b"1" * 200, r"a\.jsonl:1: more than 100 bytes \(limits.body_bytes\)"),
        ("a.jsonl", b'{"observation": 1, "mask": [0, 0, 0, 0]}\n', r"a\.jsonl, record 1 .*true of at least one"),
        ("a.csv", b"1\nstate\n", r"a\.csv:2: the body is no CSV of numbers"),
        ("a.npy", b"\x93NUMPY nothing", r"a\.npy is no NPY array"),
    ],
)
def test_a_wrong_record_costs_its_file_alone(
    name: str, content: bytes, message: str, bundles: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "good.csv").write_text("1\n2\n")
    out = tmp_path / "out"
    out.mkdir()
    (out / f"{name}.out").write_text("of a file that was sound")
    with BatchTransform(endpoint({"name": "a", "bundle": str(bundles["left"])}, limits={"body_bytes": 100})) as batch:
        wrong, good = batch.run([tmp_path / name, tmp_path / "good.csv"], out)
    assert wrong.output is None
    with pytest.raises(UserError, match=message):
        raise UserError(str(wrong.error))
    assert good.n_records == 2
    assert [path.name for path in out.iterdir()] == ["good.csv.out"], "no part of a file is left, nor an older output"


def test_a_pickle_in_an_array_is_not_opened(bundles: dict[str, Path], tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)  # the hostile file
    with BatchTransform(endpoint({"name": "a", "bundle": str(bundles["left"])})) as batch:
        (found,) = batch.run([tmp_path / "objects.npy"], tmp_path)
    assert "is no NPY array of numbers" in str(found.error)


def test_the_command_tells_files_and_mistakes(
    states: Path, bundles: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert main(["transform", str(bundles["left"]), str(states), "--out", out, "--json"]) == 0
    (only,) = json.loads(capsys.readouterr().out)["files"]
    assert only == {"source": str(states), "output": f"{out}/states.jsonl.out", "records": 500, "error": None}
    (tmp_path / "bad.csv").write_text("x\n")
    assert main(["transform", str(bundles["left"]), str(tmp_path / "bad.csv"), "--out", out]) == 1
    assert "no output: " in capsys.readouterr().out
    (tmp_path / "other").mkdir()
    same = tmp_path / "other" / states.name
    same.write_text("1\n")
    for arguments, said in [
        ([str(tmp_path / "no.csv")], "is no file"),
        ([str(tmp_path)], "is no file"),
        ([str(states), str(same)], "would both become states.jsonl.out"),
        ([str(states), "--variant", "polisy"], "no variant 'polisy'; did you mean 'policy'?"),
    ]:
        assert main(["transform", str(bundles["left"]), *arguments, "--out", out]) == 2
        assert said in capsys.readouterr().err


def test_an_endpoint_of_many_models_has_nobody_to_ask(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="many models"):
        BatchTransform(endpoint(models={"folder": str(tmp_path)}))
