"""Columns of every source: types, moments, categories, merges."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter

from policylab.errors import UserError
from policylab.monitoring.profiles.cells import of_numbers, of_values
from policylab.monitoring.profiles.column import MAX_CATEGORIES, ColumnProfile
from policylab.monitoring.profiles.profile import Profile, profile_of


def column(*pieces: NDArray[np.float64]) -> ColumnProfile:
    found = ColumnProfile(np.random.default_rng(0))
    for piece in pieces:
        found.update(of_numbers(piece))
    return found


@pytest.mark.parametrize("shift", [0.0, 1e6, -1e9])
def test_moments_do_not_depend_on_pieces_or_place(shift: float) -> None:
    x = np.random.default_rng(0).standard_normal(10_000) + shift
    whole, pieces = column(x), column(*np.array_split(x, 7))
    merged = column(x[:3_000])
    merged.merge(column(x[3_000:]))
    for found in (whole, pieces, merged):
        assert found.mean == pytest.approx(x.mean(), rel=1e-12)
        assert found.std_dev == pytest.approx(x.std(), rel=1e-6)
        assert (found.low, found.high, found.n_numbers) == (x.min(), x.max(), 10_000)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


SAME = {
    "csv": "a,b,c\n1,x,2.5\n2,y,\n,x,nan\n4,z,inf\n",
    "jsonl": '{"a": 1, "b": "x", "c": 2.5}\n{"a": 2, "b": "y", "c": null}\n{"b": "x", "c": NaN}\n'
    '{"a": 4, "b": "z", "c": Infinity}\n',
}


@pytest.mark.parametrize("kind", [*SAME, "parquet"])
def test_the_same_table_of_any_kind_has_the_same_profile(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"table.{kind}"
    if kind == "parquet":
        table = {
            "a": pa.array([1, 2, None, 4]),
            "b": ["x", "y", "x", "z"],
            "c": [2.5, None, float("nan"), float("inf")],
        }
        pq.write_table(pa.table(table), path)
    else:
        write(path, SAME[kind])
    profile = profile_of([path])
    assert profile.n_rows == 4
    assert list(profile.columns) == ["a", "b", "c"]
    a, b, c = profile.columns.values()
    assert (a.type, a.n_present, a.n_missing, a.mean) == ("Integral", 3, 1, pytest.approx(7 / 3))
    assert (b.type, b.categories()) == ("String", {"x": 2, "y": 1, "z": 1})
    assert (c.type, c.n_numbers, c.n_missing, c.n_infinite) == ("Fractional", 1, 3, 1)


def test_lists_and_objects_become_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", '{"obs": [0.5, 1], "info": {"k": "a"}}\n{"obs": [1.5, 2], "info": {"k": "b"}}\n')
    assert list(profile_of([path]).columns) == ["obs_0", "obs_1", "info_k"]
    lists = pa.array([[0.5, 1.0], [1.5, 2.0]], type=pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"obs": lists, "n": [1, 2]}), tmp_path / "t.parquet")
    found = profile_of([tmp_path / "t.parquet"])
    assert {name: column.mean for name, column in found.columns.items()} == {"obs_0": 1.0, "obs_1": 1.5, "n": 1.5}


def test_mostly_numbers_are_numbers_and_the_rest_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,b\n" + "1,x\n" * 19 + "oops,2\n")
    a, b = profile_of([path]).columns.values()
    assert (a.type, a.n_numbers, a.n_texts, a.share_of("Integral")) == ("Integral", 19, 1, 0.95)
    assert (b.type, b.categories()) == ("String", {"x": 19, "2": 1})


def test_a_column_that_comes_or_goes_is_missing_elsewhere(tmp_path: Path) -> None:
    first = write(tmp_path / "1.jsonl", '{"a": 1}\n{"a": 2}\n')
    second = write(tmp_path / "2.jsonl", '{"b": 1}\n')
    profile = profile_of([first, second])
    assert {name: (c.n_present, c.n_missing) for name, c in profile.columns.items()} == {"a": (2, 1), "b": (1, 2)}


def test_different_texts_are_bounded(tmp_path: Path) -> None:
    n = MAX_CATEGORIES + 5
    path = write(tmp_path / "t.csv", "a\n" + "\n".join(f"name-{i}" for i in range(n)) + "\n")
    found = profile_of([path]).columns["a"]
    assert len(found.texts) == MAX_CATEGORIES
    assert (found.n_other_texts, found.n_present) == (5, n)
    assert found.categories() is None


def test_profiles_are_stored_and_merged(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = []
    for i in range(3):
        table = pa.table({"x": rng.standard_normal(30_000), "k": rng.choice(["ä", "b", ""], 30_000)})
        pq.write_table(table, tmp_path / f"{i}.parquet")
        profile_of([tmp_path / f"{i}.parquet"]).save(tmp_path / f"{i}.npz")
        parts.append(Profile.load(tmp_path / f"{i}.npz"))
    whole = profile_of([tmp_path / f"{i}.parquet" for i in range(3)])
    merged = Profile()
    for part in parts:
        merged.merge(part)
    assert merged.n_rows == whole.n_rows == 90_000
    assert merged.columns["k"].categories() == whole.columns["k"].categories()
    assert merged.columns["x"].mean == pytest.approx(whole.columns["x"].mean)
    assert merged.columns["x"].std_dev == pytest.approx(whole.columns["x"].std_dev)


def test_the_same_data_leaves_the_same_bytes(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": np.random.default_rng(0).standard_normal(50_000)}), tmp_path / "t.parquet")
    for name in ("a", "b"):
        profile_of([tmp_path / "t.parquet"]).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def captured(data: str, output: str, encoding: str, *, decision_id: str = "9d4f", **facts: float) -> str:
    """Return a line as the Developer Guide shows it, and as policylab's endpoints add to it."""
    kind = {"CSV": "text/csv", "JSON": "application/json"}.get(encoding, "image/png")
    parts = {
        f"endpoint{mode.capitalize()}": {
            "observedContentType": kind, "mode": mode.upper(), "data": content, "encoding": encoding
        }
        for mode, content in (("input", data), ("output", output))
    }  # fmt: skip
    metadata = {"eventId": decision_id, "inferenceTime": "2022-02-14T17:25:49Z"}
    line = {"captureData": parts, "eventMetadata": metadata, "eventVersion": "0"}
    return json.dumps({**line, "policylab": facts} if facts else line) + "\n"


def test_captured_traffic_is_a_table(tmp_path: Path) -> None:
    hour = tmp_path / "captured" / "lake" / "a" / "2022" / "02" / "14" / "17"
    rewards = tmp_path / "ground-truth" / "lake" / "2022" / "02" / "14" / "17"
    hour.mkdir(parents=True)
    rewards.mkdir(parents=True)
    other = captured("1.5,3", "0\n", "CSV", decision_id="9d50")
    write(hour / "1.jsonl", captured("[0.5, 2]", "1", "JSON", propensity=0.25) + other)
    write(hour / "2.jsonl", other)  # a copy counts once
    write(rewards / "1.jsonl", '{"groundTruthData": {"data": "1.5", "encoding": "JSON"}, "eventMetadata": {}}\n')
    profile = profile_of([tmp_path])
    means = {name: column.mean for name, column in profile.columns.items()}
    assert means == {"observation_0": 1.0, "observation_1": 2.5, "action": 0.5, "propensity": 0.25}
    assert profile.columns["propensity"].n_missing == 1
    assert profile_of([tmp_path / "ground-truth"]).columns["reward"].mean == 1.5


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (captured("aGVsbG8=", "aGVsbG8=", "BASE64"), "data captured as BASE64"),
        (captured("1\n2", "1", "CSV"), "2 rows of CSV"),
        (captured("{", "1", "JSON"), "not a line of JSON"),
        ('{"captureData": {"endpointInput": {}}}\n', "a captured line without 'data'"),
        ('{"captureData": 3}\n', "a captured line without"),
    ],
)
def test_damaged_captures_are_one_clear_error(line: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        profile_of([write(tmp_path / "t.jsonl", line + captured("1", "1", "CSV"))])


# ------------------------------------------------------------------ what cannot be read

BROKEN = {
    "missing.csv": (None, "does not exist"),
    "empty.csv": ("", "the first line must name each column once"),
    "twice.csv": ("a,a\n1,2\n", "must name each column once"),
    "ragged.csv": ("a,b\n1,2\n3\n", "damaged or no .csv file"),
    "latin.csv": (b"a,b\n1,\xe9\xff\n", "damaged or no .csv file|not UTF-8"),
    "other.txt": ("a\n", "must be one of"),
    "no.parquet": ("PAR1 and nothing else", "Parquet|cannot be read"),
    "bad.jsonl": ('{"a": 1}\n{"a": \n{"a": 2}\n', "bad.jsonl:2: not a line of JSON"),
    "list.jsonl": ("[1, 2]\n", "no object"),
    "deep.jsonl": ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}\n", "not a line of JSON"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_one_clear_error(name: str, tmp_path: Path) -> None:
    content, message = BROKEN[name]
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as caught:
        profile_of([tmp_path / name])
    assert "\n" not in str(caught.value)


def test_a_last_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    assert profile_of([write(tmp_path / "t.jsonl", '{"a": 1}\n{"a": 2')]).n_rows == 1


def test_truncated_parquet_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": np.arange(10_000.0)}), tmp_path / "t.parquet")
    content = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"t\.parquet"):
        profile_of([tmp_path / "t.parquet"])


def test_an_unknown_column_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no column 'z'; it has 'a', 'b'"):
        profile_of([write(tmp_path / "t.csv", "a,b\n1,2\n")], columns=("z",))


@pytest.mark.parametrize("cut", [10, 200])
def test_a_damaged_profile_is_refused(cut: int, tmp_path: Path) -> None:
    profile_of([write(tmp_path / "t.csv", "a\n1\n2\n")]).save(tmp_path / "p.npz")
    (tmp_path / "p.npz").write_bytes((tmp_path / "p.npz").read_bytes()[:-cut])
    with pytest.raises(UserError, match="is no stored profile"):
        Profile.load(tmp_path / "p.npz")
    with pytest.raises(UserError, match="cannot be read"):
        Profile.load(tmp_path / "absent.npz")


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.update(index=np.frombuffer(b"[1]", dtype=np.uint8)),
        lambda arrays: arrays.pop("0.facts"),
        lambda arrays: arrays.update({"0.values": np.array(["a"], dtype=object)}),
        lambda arrays: arrays.update({"0.text_counts": np.array([-1])}),
        lambda arrays: arrays["0.profile"].__setitem__(0, 7),
        lambda arrays: arrays["0.profile"].__setitem__(4, np.nan),
        lambda arrays: arrays.update({"0.few": np.array([[np.nan, 2.0]])}),
    ],
)
def test_a_hostile_profile_is_one_clear_error(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    profile_of([write(tmp_path / "t.csv", "a\n1\n2\n")]).save(tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz") as file:
        arrays = {name: file[name].copy() for name in file.files}
    change(arrays)
    np.savez(tmp_path / "p.npz", allow_pickle=True, **arrays)
    with pytest.raises(UserError, match="is no stored profile"):
        Profile.load(tmp_path / "p.npz")


def test_a_profile_that_claims_to_be_enormous_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**60,)})
    with zipfile.ZipFile(tmp_path / "p.npz", "w") as archive:
        archive.writestr("index.npy", header.getvalue())
    with pytest.raises(UserError, match="is no stored profile"):
        Profile.load(tmp_path / "p.npz")


def test_strange_texts_survive(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.jsonl", '{"<b>": "\\ud800 lone", "x": "\\u0000", "y": [], "z": {}}\n{"<b>": true, "x": [1]}\n'
    )
    profile = profile_of([path])
    profile.save(tmp_path / "p.npz")
    again = Profile.load(tmp_path / "p.npz")
    assert list(again.columns) == list(profile.columns)
    assert again.columns["x"].texts == profile.columns["x"].texts


@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_numbers_texts_and_gaps_are_worth_the_same_in_pieces_of_any_size(phi: float) -> None:
    noise = np.random.default_rng(0).standard_normal(6_000)
    x = lfilter([1.0], [1.0, -phi], noise)
    cells = {
        "number": lambda part: of_numbers(x[part]),
        "text": lambda part: of_values(["up" if value > 0 else "down" for value in x[part]]),
        "gap": lambda part: of_values([None if value > 0 else 1 for value in x[part]]),
    }
    expected = {"number": "autocorrelation_time", "text": "time", "gap": "missing_time"}
    for kind, of in cells.items():
        times = []
        for n_pieces in (1, 600):
            found = ColumnProfile(np.random.default_rng(0))
            for part in np.array_split(np.arange(6_000), n_pieces):
                found.update(of(part))
            time = getattr(found, expected[kind])
            times.append(time if isinstance(time, float) else time.time)
        assert times[0] == pytest.approx(times[1])
        assert (times[0] < 1.5) if phi == 0.0 else (5.0 < times[0] < 30.0), kind
