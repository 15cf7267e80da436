"""Bodies: every content type gives the observation that was sent, and any other bytes nothing but a refusal."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from policylab.agents.space_json import value_to_json
from policylab.deployment.decision import Refusal
from policylab.deployment.http.bodies import CSV, JSON, NPY, BodyReader, decompressed

SPACES: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(16, start=1),
    "vector": spaces.Box(-10.0, 10.0, (4,), np.float32),
    "image": spaces.Box(0, 255, (3, 2), np.uint8),
    "several": spaces.MultiDiscrete([3, 4]),
    "cards": spaces.Tuple([spaces.Discrete(32), spaces.Discrete(11), spaces.Discrete(2)]),
    "parts": spaces.Dict({"place": spaces.Box(-1, 1, (2,), np.float64), "mode": spaces.Discrete(3)}),
}


def reader(space: spaces.Space[Any], *, max_batch: int = 8) -> BodyReader:
    bundle: Any = SimpleNamespace(observation_space=space)
    return BodyReader(bundle, max_batch=max_batch)


def samples(space: spaces.Space[Any], n: int = 3) -> list[Any]:
    space.seed(0)
    return [space.sample() for _ in range(n)]


def same(space: spaces.Space[Any], found: Any, sent: Any) -> bool:
    return space.contains(found) and value_to_json(space, found) == value_to_json(space, sent)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_json_gives_back_the_observations(space: spaces.Space[Any]) -> None:
    sent = samples(space)
    plain = [value_to_json(space, one) for one in sent]
    single = reader(space).read(json.dumps({"observation": plain[0], "episode": "e", "step": 7}).encode(), JSON)
    assert single.single
    assert (single.episode, single.step) == ("e", 7)
    assert same(space, single.observations[0], sent[0])
    for word in ("observations", "instances", "inputs"):
        batch = reader(space).read(json.dumps({word: plain}).encode(), f"{JSON}; charset=utf-8")
        assert not batch.single
        assert all(same(space, found, one) for found, one in zip(batch.observations, sent, strict=True))
    bare = reader(space).read(json.dumps(plain[0]).encode(), "")
    assert bare.single
    assert same(space, bare.observations[0], sent[0])
    if not isinstance(space, spaces.Tuple | spaces.Dict):  # a list of lists could be either
        batch = reader(space).read(json.dumps(plain).encode(), JSON)
        assert not batch.single
        assert len(batch.observations) == 3


@pytest.mark.parametrize("name", ["discrete", "vector", "image", "several", "cards"])
def test_csv_gives_back_the_observations(name: str) -> None:
    space = SPACES[name]
    sent = samples(space)
    lines = [",".join(map(str, np.asarray(value_to_json(space, one)).ravel().tolist())) for one in sent]
    single = reader(space).read(lines[0].encode(), CSV)
    assert single.single
    assert same(space, single.observations[0], sent[0])
    batch = reader(space).read("\n".join([*lines, ""]).encode(), CSV)
    assert [same(space, found, one) for found, one in zip(batch.observations, sent, strict=True)] == [True] * 3


@pytest.mark.parametrize("name", ["discrete", "vector", "image", "several"])
def test_npy_gives_back_the_observations(name: str) -> None:
    space = SPACES[name]
    sent = samples(space)
    for array, single in ((np.asarray(sent[0]), True), (np.asarray(sent), False)):
        asked = reader(space).read(npy(array), NPY)
        assert asked.single is single
        assert all(same(space, found, one) for found, one in zip(asked.observations, sent, strict=False))


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def test_masks_go_with_their_observations() -> None:
    read = reader(SPACES["discrete"]).read
    asked = read(b'{"observations": [1, 2], "masks": [[true, false], null]}', JSON)
    assert asked.masks is not None
    assert asked.masks[0].tolist() == [True, False]  # type: ignore[union-attr]
    assert asked.masks[1] is None
    assert read(b'{"observation": 1, "mask": [1, 0]}', JSON).masks[0].tolist() == [True, False]  # type: ignore


def test_lines_of_json_are_a_batch_with_the_masks_that_are_given() -> None:
    asked = reader(spaces.Discrete(17)).read(b'1\n{"observation": 2, "mask": [1, 0]}\n\n3', "application/jsonlines")
    assert (asked.observations, asked.single) == ((1, 2, 3), False)
    assert asked.masks is not None
    assert [None if mask is None else mask.tolist() for mask in asked.masks] == [None, [True, False], None]
    for line in (b"[1, 2]", b'{"observation": 1, "step": 3}', b"1\n{"):
        with pytest.raises(Refusal, match=r"one observation|no JSON"):
            reader(spaces.Discrete(17)).read(line, "application/jsonlines")


BAD = {
    "nothing": b"",
    "no JSON": b"{",
    "not UTF-8": b'"\xff"',
    "deep": b"[" * 100_000,
    "out of range": b"17",
    "a float": b"1.0",
    "a truth": b"true",
    "a text": b'"1"',
    "not a number": b"NaN",
    "unknown key": b'{"observation": 1, "masks_": []}',
    "two at once": b'{"observation": 1, "observations": [1]}',
    "neither": b'{"step": 1}',
    "no list": b'{"observations": 1}',
    "too few masks": b'{"observations": [1, 2], "masks": [[1, 1]]}',
    "no mask": b'{"observation": 1, "mask": "1"}',
    "wrong step": b'{"observation": 1, "step": -1}',
    "wrong episode": b'{"observation": 1, "episode": ""}',
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_bad_json_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal, match=r".") as refusal:
        reader(SPACES["discrete"]).read(body, JSON)
    assert refusal.value.kind == "observation"


def test_too_many_observations_are_refused() -> None:
    for body, kind in ((b'{"observations": [1,1,1]}', JSON), (b"1\n1\n1\n", CSV), (npy(np.ones(3, dtype=int)), NPY)):
        with pytest.raises(Refusal, match=r"more than limits\.batch, 2") as refusal:
            reader(SPACES["discrete"], max_batch=2).read(body, kind)
        assert refusal.value.kind == "too_large"


class Hostile:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("unpickled"),))


def test_no_array_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    body = npy(np.array([Hostile()], dtype=object), allow_pickle=True)
    with pytest.raises(Refusal, match="NPY array of numbers"):
        reader(SPACES["vector"]).read(body, NPY)
    zipped = io.BytesIO()
    np.savez(zipped, observation=np.zeros(4))
    with pytest.raises(Refusal, match="no NPY array"):
        reader(SPACES["vector"]).read(zipped.getvalue(), NPY)
    assert list(tmp_path.iterdir()) == []


def test_an_array_that_promises_more_than_it_holds_takes_no_memory() -> None:
    header = npy(np.zeros(4, dtype=np.float32)).replace(b"(4,), }      ", b"(400000000000,), }")[:128]
    with pytest.raises(Refusal, match="NPY array"):
        reader(SPACES["vector"]).read(header + b"\0" * 16, NPY)


def test_other_content_types_are_refused() -> None:
    with pytest.raises(Refusal, match="'application/x-python-pickle' is not read") as refusal:
        reader(SPACES["discrete"]).read(b"1", "application/x-python-pickle")
    assert refusal.value.kind == "unsupported"


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_bytes_are_read_or_refused(name: str, data: st.DataObject) -> None:
    """Whatever comes in: observations of the space come out, or a refusal; nothing else is raised."""
    numbers = st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=3))
    values = st.recursive(numbers, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(
        st.sampled_from(["observation", "observations", "mask", "masks", "step", "episode", "place", "mode", "x"]),
        inner, max_size=4), max_leaves=12)  # fmt: skip
    bodies = st.one_of(
        st.binary(max_size=200),
        values.map(lambda value: json.dumps(value).encode()),
        st.text(alphabet="0123456789.,-e\n na_x", max_size=40).map(str.encode),
        st.binary(max_size=60).map(lambda tail: npy(np.zeros(4, dtype=np.float32))[:90] + tail),
    )
    body, kind = data.draw(bodies), data.draw(st.sampled_from([JSON, CSV, NPY, ""]))
    space = SPACES[name]
    try:
        asked = reader(space).read(body, kind)
    except Refusal:
        return
    assert all(space.contains(one) for one in asked.observations)


# ------------------------------------------------------------------ compression


def test_compressed_bodies_are_read() -> None:
    body = b"[0.5, 1.0]" * 10
    assert decompressed(gzip.compress(body, mtime=0), "gzip", max_bytes=100) == body
    assert decompressed(zlib.compress(body), "deflate", max_bytes=100) == body
    assert decompressed(body, "identity", max_bytes=1) == body


def test_a_bomb_is_refused_before_it_unfolds() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000, mtime=0)
    with pytest.raises(Refusal, match="once decompressed") as refusal:
        decompressed(bomb, "gzip", max_bytes=1000)
    assert refusal.value.kind == "too_large"


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"no gzip", "gzip"),
        (gzip.compress(b"1", mtime=0)[:-4], "gzip"),
        (gzip.compress(b"1", mtime=0) + b"more", "gzip"),
        (b"", "gzip"),
        (b"1", "br"),
    ],
)
def test_damaged_or_unknown_compression_is_refused(body: bytes, encoding: str) -> None:
    with pytest.raises(Refusal, match=r"data|not read"):
        decompressed(body, encoding, max_bytes=1000)
