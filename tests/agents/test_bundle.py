"""Policy bundles: what is written is what is loaded, and everything damaged or hostile is refused in one sentence."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policylab.agents.bundle import Bundle, Lineage, load_bundle, pack, write_bundle
from policylab.agents.features import AutoFeatures, TilesFeatures, make_encoder
from policylab.agents.policy import StoredPolicy
from policylab.agents.space_json import space_from_json, space_to_json, value_from_json, value_to_json
from policylab.agents.value_policies import BanditPolicy, TabularPolicy
from policylab.errors import BundleError, UserError
from policylab.files import content_hash

LINEAGE = Lineage(git_commit="0" * 40, config_hash="a" * 64, seeds=(1, 2), created_utc="2026-01-01T00:00:00+00:00")


def tabular(env: gym.Env[Any, Any], **options: Any) -> TabularPolicy:
    encoder = make_encoder(AutoFeatures(), env.observation_space)
    n_actions = int(env.action_space.n)  # type: ignore[attr-defined]
    return TabularPolicy(np.random.default_rng(0).normal(size=(encoder.n_features, n_actions)), encoder, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    env = gym.make("FrozenLake-v1", map_name="4x4")
    write_bundle(tmp_path / "bundle", tabular(env), env=env, lineage=LINEAGE, metrics={"return": {"value": 0.74}})
    return tmp_path / "bundle"


@pytest.fixture
def archive(folder: Path) -> Path:
    pack(folder, folder.parent / "model.tar.gz")
    return folder.parent / "model.tar.gz"


def reseal(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest and make its hashes right again, as an attacker would."""
    facts = json.loads((folder / "manifest.json").read_text())
    arrays = (folder / "arrays.npz").read_bytes()
    facts["files"]["arrays.npz"] = {"size": len(arrays), "sha256": hashlib.sha256(arrays).hexdigest()}
    change(facts)
    facts.pop("digest", None)
    facts["digest"] = content_hash(facts)
    (folder / "manifest.json").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")


def refused(path: Path, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def tar_of(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    path.write_bytes(gzip.compress(buffer.getvalue()))


# ------------------------------------------------------------------ what is written is what is loaded


def stored_policies() -> list[tuple[str, gym.Env[Any, Any], StoredPolicy]]:
    taxi = gym.make("Taxi-v3")
    blackjack = gym.make("Blackjack-v1", sab=True)
    car = gym.make("MountainCar-v0")
    tiles = make_encoder(TilesFeatures(), car.observation_space)
    weights = np.random.default_rng(1).normal(size=(tiles.n_features, 3))
    return [
        ("taxi", taxi, tabular(taxi)),
        ("taxi softmax", taxi, tabular(taxi, temperature=0.5, epsilon=0.1)),
        ("blackjack", blackjack, tabular(blackjack)),
        ("mountain car", car, TabularPolicy(weights, tiles)),
        ("bandit", blackjack, BanditPolicy(np.array([0.5, 1.0]), temperature=1.0)),
    ]


@pytest.mark.parametrize(
    ("env", "policy"), [row[1:] for row in stored_policies()], ids=[r[0] for r in stored_policies()]
)
def test_the_loaded_policy_decides_as_the_written_one(
    tmp_path: Path, env: gym.Env[Any, Any], policy: StoredPolicy
) -> None:
    write_bundle(tmp_path / "b", policy, env=env, lineage=LINEAGE, metrics={})
    pack(tmp_path / "b", tmp_path / "model.tar.gz")
    for bundle in (load_bundle(tmp_path / "b"), load_bundle(tmp_path / "model.tar.gz")):
        env.observation_space.seed(0)
        for _ in range(50):
            observation = env.observation_space.sample()
            assert bundle.policy.act(observation) == policy.act(observation)
            assert bundle.policy.probabilities(observation).tolist() == policy.probabilities(observation).tolist()
        assert bundle.observation_space == env.observation_space
        assert bundle.action_space == env.action_space


def test_the_manifest_says_where_the_policy_came_from(folder: Path) -> None:
    manifest = load_bundle(folder).manifest
    assert manifest.environment.id == "FrozenLake-v1"
    assert manifest.environment.version == 1
    assert manifest.environment.kwargs["map_name"] == "4x4"
    assert manifest.environment.max_episode_steps == 100
    assert manifest.environment.gymnasium_version == gym.__version__
    assert manifest.lineage == LINEAGE
    assert manifest.metrics == {"return": {"value": 0.74}}
    assert len(manifest.golden) >= 8


def test_the_same_bundle_gives_the_same_bytes(folder: Path, archive: Path, tmp_path: Path) -> None:
    env = gym.make("FrozenLake-v1", map_name="4x4")
    again = write_bundle(tmp_path / "c", tabular(env), env=env, lineage=LINEAGE, metrics={"return": {"value": 0.74}})
    pack(tmp_path / "c", tmp_path / "c.tar.gz")
    assert (tmp_path / "c.tar.gz").read_bytes() == archive.read_bytes()
    assert again.digest == load_bundle(folder).digest


def test_writing_replaces_an_older_bundle_but_nothing_else(folder: Path) -> None:
    env = gym.make("FrozenLake-v1")
    newer = write_bundle(folder, tabular(env, epsilon=0.5), env=env, lineage=LINEAGE, metrics={})
    assert load_bundle(folder).digest == newer.digest
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"holds 'notes.txt', which is no part of a bundle"):
        write_bundle(folder, tabular(env), env=env, lineage=LINEAGE, metrics={})
    assert (folder / "notes.txt").read_text() == "mine"


def test_an_archive_made_with_tar_is_loaded(folder: Path, tmp_path: Path) -> None:
    """As by ``tar czf model.tar.gz -C bundle .``, with ``./`` names and a folder entry."""
    with tarfile.open(tmp_path / "user.tar.gz", "w:gz") as tar:
        tar.add(folder, arcname=".")
    assert load_bundle(tmp_path / "user.tar.gz").digest == load_bundle(folder).digest


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_diverged_values_and_metrics_are_not_written(tmp_path: Path, value: float) -> None:
    env = gym.make("FrozenLake-v1")
    encoder = make_encoder(AutoFeatures(), env.observation_space)
    with pytest.raises(BundleError, match="array 'weights' holds NaN or infinity, as after diverged learning"):
        write_bundle(
            tmp_path / "b", TabularPolicy(np.full((16, 4), value), encoder), env=env, lineage=LINEAGE, metrics={}
        )
    with pytest.raises(BundleError, match="manifest must be JSON without NaN or infinity"):
        write_bundle(tmp_path / "b", tabular(env), env=env, lineage=LINEAGE, metrics={"return": value})
    assert not (tmp_path / "b").exists()


# ------------------------------------------------------------------ damage


def test_a_truncated_archive_is_refused_at_every_length(archive: Path, tmp_path: Path) -> None:
    content = archive.read_bytes()
    path = tmp_path / "cut.tar.gz"
    for length in {*range(0, len(content), 37), *range(12), len(content) - 1}:
        path.write_bytes(content[:length])
        refused(path, "is refused as a policy bundle: ")


def test_a_flipped_bit_in_an_archive_never_changes_the_bundle(archive: Path, tmp_path: Path) -> None:
    content, digest = archive.read_bytes(), load_bundle(archive).digest
    path, draw = tmp_path / "flipped.tar.gz", random.Random(0)
    refusals = 0
    for place in [*range(12), *draw.sample(range(len(content)), 150)]:
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :])
        try:
            assert load_bundle(path).digest == digest  # only the time and system in the gzip header carry no check
        except BundleError:
            refusals += 1
    assert refusals >= 150


@pytest.mark.parametrize("name", ["manifest.json", "arrays.npz"])
def test_a_flipped_bit_in_a_folder_is_refused(folder: Path, name: str) -> None:
    content, draw = (folder / name).read_bytes(), random.Random(1)
    for place in draw.sample(range(len(content)), 150):
        (folder / name).write_bytes(
            content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :]
        )
        refused(folder, "is refused as a policy bundle: ")


def test_wrong_hash_size_and_missing_file_are_named(folder: Path) -> None:
    content = (folder / "arrays.npz").read_bytes()
    (folder / "arrays.npz").write_bytes(content[:-1] + b"x")
    refused(folder, "arrays.npz was altered: its sha256 is not the one in manifest.json; copy it again")
    (folder / "arrays.npz").write_bytes(content + b"x")
    refused(folder, r"arrays.npz has \d+ bytes, manifest.json says \d+")
    (folder / "arrays.npz").unlink()
    refused(folder, "file 'arrays.npz' is listed in manifest.json but missing")
    (folder / "manifest.json").unlink()
    refused(folder, "it has no manifest.json")


def test_what_is_no_bundle_is_said_to_be_none(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "there is no such file or folder; give a bundle folder or a model.tar.gz")
    (tmp_path / "text").write_text("hello")
    refused(tmp_path / "text", "it is not a policy bundle")
    (tmp_path / "pickle").write_bytes(pickle.dumps({"a": 1}))
    refused(tmp_path / "pickle", "it is not a policy bundle")
    (tmp_path / "text.gz").write_bytes(gzip.compress(b"hello"))
    refused(tmp_path / "text.gz", "the archive is not a readable tar file")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "it has no manifest.json")
    tar_of(tmp_path / "none.tar.gz", [])
    refused(tmp_path / "none.tar.gz", "it has no manifest.json")


# ------------------------------------------------------------------ hostile folders and archives


def test_links_folders_and_extra_files_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "extra.txt").write_text("x")
    refused(folder, "file 'extra.txt' is not listed in manifest.json; remove it")
    (folder / "extra.txt").unlink()
    (folder / "code").mkdir()
    refused(folder, "'code' is not a regular file; a bundle holds no folders and no links")
    (folder / "code").rmdir()
    (tmp_path / "elsewhere").write_bytes((folder / "arrays.npz").read_bytes())
    (folder / "arrays.npz").unlink()
    (folder / "arrays.npz").symlink_to(tmp_path / "elsewhere")
    refused(folder, "'arrays.npz' is not a regular file")


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/b", "..", ".hidden", "a\\b", "x" * 200, "é", "a\nb", ""])
def test_members_outside_the_flat_bundle_are_refused(archive: Path, name: str) -> None:
    tar_of(archive, [(tarfile.TarInfo(name), b"x")])
    refused(archive, r"is not allowed; a bundle holds plain files side by side|not a readable tar file")
    assert sorted(path.name for path in archive.parent.iterdir()) == ["bundle", "model.tar.gz"]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CONTTYPE]
)
def test_members_that_are_not_regular_files_are_refused(archive: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("manifest.json")
    member.type, member.linkname = kind, "/etc/passwd"
    tar_of(archive, [(member, b"")])
    refused(archive, "member 'manifest.json' is not a regular file")


def test_a_member_twice_is_refused(folder: Path, archive: Path) -> None:
    manifest = (folder / "manifest.json").read_bytes()
    tar_of(archive, [(tarfile.TarInfo("manifest.json"), manifest), (tarfile.TarInfo("./manifest.json"), manifest)])
    refused(archive, "file 'manifest.json' appears twice")


def test_many_members_are_refused(archive: Path) -> None:
    tar_of(archive, [(tarfile.TarInfo(f"f{number}"), b"") for number in range(100)])
    refused(archive, "there are more than 16 files")
    tar_of(archive, [(tarfile.TarInfo("./"), b"")] * 100)
    refused(archive, "more than 16 members|is not allowed")


def test_an_archive_bomb_is_refused_before_it_is_unpacked(archive: Path) -> None:
    compressor = gzip.compress(bytes(80 * 2**20), compresslevel=9)
    assert len(compressor) < 2**17
    archive.write_bytes(compressor)
    refused(archive, "the archive unpacks to more than 64 MiB; it is no policy bundle")


def test_a_member_that_declares_a_huge_size_is_refused(archive: Path) -> None:
    member = tarfile.TarInfo("arrays.npz")
    member.size = 2**40
    archive.write_bytes(gzip.compress(member.tobuf() + bytes(1024)))
    refused(archive, "its files exceed 512 MiB|not a readable tar file")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=2000))
def test_any_bytes_in_a_tar_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fuzz.tar.gz"
    path.write_bytes(gzip.compress(content))
    refused(path, "is refused as a policy bundle: ")


# ------------------------------------------------------------------ hostile arrays


def npz(folder: Path, members: dict[str, bytes], *, compress: bool = False) -> None:
    with zipfile.ZipFile(
        folder / "arrays.npz", "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    ) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def npy(array: np.ndarray[Any, Any], *, shape: tuple[int, ...] | None = None) -> bytes:
    buffer = io.BytesIO()
    header = np.lib.format.header_data_from_array_1_0(array)
    if shape is not None:
        header["shape"] = shape
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + array.tobytes()


class Exploit:
    """Leaves a mark when unpickled."""

    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('unpickled')",))


def test_an_object_array_is_refused_and_never_unpickled(folder: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Exploit()], dtype=object), allow_pickle=True)
    npz(folder, {"weights.npy": buffer.getvalue()})
    reseal(folder, lambda facts: None)
    refused(folder, "array 'weights' is object of shape|declares <f8")
    reseal(folder, lambda facts: facts["arrays"].update(weights={"dtype": "|O", "shape": [1]}))
    refused(folder, "array 'weights' has type '|O', not plain numbers")


def test_a_zip_bomb_is_refused(folder: Path) -> None:
    npz(folder, {"weights.npy": npy(np.zeros((2**20, 4)))}, compress=True)
    reseal(folder, lambda facts: None)
    refused(folder, r"arrays.npz is larger than|array 'weights' is float64 of shape \(1048576, 4\)")
    reseal(folder, lambda facts: facts["arrays"]["weights"].update(shape=[2**40, 4]))
    refused(folder, "the declared arrays need 3.52e\\+13 bytes")


def test_a_huge_declared_shape_is_refused_before_allocation(folder: Path) -> None:
    npz(folder, {"weights.npy": npy(np.zeros((16, 4)), shape=(2**50, 4))})
    reseal(folder, lambda facts: None)
    refused(folder, r"array 'weights' is float64 of shape \(1125899906842624, 4\), but manifest.json declares")
    npz(folder, {"weights.npy": npy(np.zeros((4, 4)), shape=(16, 4))})
    reseal(folder, lambda facts: None)
    refused(folder, "array 'weights' has 256 bytes, its shape needs 640")


@pytest.mark.parametrize(
    "members",
    [
        {"weights.npy": b"", "../evil.npy": b""},
        {"other.npy": npy(np.zeros((16, 4)))},
        {"weights.npy": npy(np.zeros((16, 4))), "more.npy": npy(np.zeros(1))},
        {},
        {"weights.npy": b"\x93NUMPY\x09\x00junk"},
        {"weights.npy": b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535},
        {"weights.npy": b"not an array"},
        {"weights.npy": npy(np.full((16, 4), np.nan))},
        {"weights.npy": npy(np.zeros((4, 16)))},
        {"weights.npy": npy(np.zeros((16, 4), dtype=np.float32))},
        {"weights.npy": npy(np.zeros((16, 4), dtype=">f8"))},
    ],
    ids=["traversal", "other", "extra", "none", "version", "deep", "text", "nan", "shape", "single", "endian"],
)
def test_other_arrays_than_declared_are_refused(folder: Path, members: dict[str, bytes]) -> None:
    npz(folder, members)
    reseal(folder, lambda facts: None)
    refused(folder, r"arrays?(\.npz| 'weights')")
    assert not (folder.parent / "evil.npy").exists()


def test_a_duplicated_array_is_refused(folder: Path) -> None:
    content = npy(np.zeros((16, 4)))
    with zipfile.ZipFile(folder / "arrays.npz", "w") as archive:
        archive.writestr("weights.npy", content)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("weights.npy", content)
    reseal(folder, lambda facts: None)
    refused(folder, r"arrays.npz (holds|is larger than)")


# ------------------------------------------------------------------ hostile manifests


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.update(schema_version=5), "schema version 5, this policylab reads up to version 4; install"),
        (lambda f: f.update(schema_version="1" * 1000), "schema version 111"),
        (lambda f: f.pop("schema_version"), "has no schema_version"),
        (lambda f: f.pop("golden"), "golden: Field required"),
        (lambda f: f.update(golden=[]), "golden: Tuple should have at least 1 item"),
        (lambda f: f.update(surprise=1), "surprise: Extra inputs are not permitted"),
        (lambda f: f["policy"].update(kind="os:system"), "unknown policy 'os:system'"),
        (lambda f: f["policy"].update(config={}), "policy config: features: Field required"),
        (lambda f: f["policy"]["config"].update(features={"kind": "index", "sizes": [17], "starts": [0]}), "shape"),
        (lambda f: f["files"].update({"../../etc/passwd": f["files"]["arrays.npz"]}), "listed in manifest.json but"),
        (lambda f: f["files"].clear(), "manifest.json does not list arrays.npz"),
        (lambda f: f["files"]["arrays.npz"].update(sha256="a" * 64), "arrays.npz was altered"),
        (lambda f: f["files"]["arrays.npz"].update(size=-1), "files.arrays.npz.size: Input should be greater"),
        (lambda f: f["arrays"].update({"../x": f["arrays"]["weights"]}), "should match pattern"),
        (lambda f: f["arrays"]["weights"].update(shape=[1] * 100), "at most 8 items"),
        (lambda f: f["golden"][0].update(action=3 - f["golden"][0]["action"]), "golden vector 0 is not reproduced"),
        (lambda f: f["golden"][0].update(probabilities=[0.25] * 4), "golden vector 0 is not reproduced"),
        (lambda f: f["golden"][0].update(probabilities=[1.0]), "golden vector 0 is not reproduced"),
        (lambda f: f["golden"][0].update(observation=99), r"99 is not a value of the space Discrete\(16\)"),
        (lambda f: f["action_space"].update(n=5), "the policy has 4 actions, the environment 5"),
        (lambda f: f.update(action_space={"type": "Tuple", "spaces": []}), "is not a value of the space Tuple"),
        (lambda f: f.update(observation_space={"type": "Box"}), "does not describe a space"),
        (
            lambda f: f["observation_space"].update(type="Box", shape=[10**9, 10**9], dtype="float64", low=0, high=1),
            "does not describe a space",
        ),
        (lambda f: f.update(environment=None), "environment: "),
    ],
)
def test_a_manifest_that_lies_is_refused(folder: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    reseal(folder, change)
    refused(folder, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not strict JSON"),
        ("null", "has no schema_version"),
        ("[1]", "has no schema_version"),
        ('{"schema_version": NaN}', "NaN is not a JSON number"),
        ('{"schema_version": 1e999}', "is not strict JSON"),
        ('{"schema_version": 1, "metrics": Infinity}', "Infinity is not a JSON number"),
        ("\xff\xfe", "is not strict JSON"),
        ("[" * 100_000, "is not strict JSON"),
        ("9" * 10_000, "is not strict JSON"),
        ('{"schema_version": 1}', "Field required"),
    ],
)
def test_a_manifest_that_is_no_manifest_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "manifest.json").write_bytes(text.encode("latin-1"))
    refused(folder, message)


@pytest.mark.parametrize("depth", [100, 300, 600, 900])
def test_deep_nesting_is_refused_without_a_crash(folder: Path, depth: int) -> None:
    def nest(facts: dict[str, Any]) -> None:
        space: Any = {"type": "Discrete", "n": 2, "start": 0}
        for _ in range(depth // 2):
            space = {"type": "Tuple", "spaces": [space]}
        facts["observation_space"] = space

    reseal(folder, nest)
    refused(folder, "is refused as a policy bundle: ")


def test_altered_metrics_and_duplicate_keys_are_refused(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace("0.74", "0.99"))
    refused(folder, "manifest.json was altered: its digest does not match")
    (folder / "manifest.json").write_text(
        text.replace('"schema_version": 4', '"schema_version": 4, "schema_version": 4')
    )
    refused(folder, "manifest.json was altered")


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = list(value) if isinstance(value, dict) else range(min(len(value), 2)) if isinstance(value, list) else []
    return [path, *(place for key in keys for place in places(value[key], (*path, key)))]


@pytest.mark.parametrize(
    "junk", [None, -1, 0.5, 1e308, 10**30, "", "x\n\x1b[31m", [], [[]], {}, {"x\n\x1b[31m": 1}, True], ids=repr
)
def test_junk_anywhere_in_the_manifest_is_refused_or_harmless(folder: Path, junk: Any) -> None:
    original = json.loads((folder / "manifest.json").read_text())
    for path in places(original)[1:]:

        def put(facts: dict[str, Any], path: tuple[Any, ...] = path) -> None:
            place: Any = facts
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = junk

        (folder / "manifest.json").write_text(json.dumps(original))
        reseal(folder, put)
        try:
            load_bundle(folder)
        except BundleError as error:
            assert str(error).isprintable()  # noqa: PT017 - whether it is raised depends on the place


def test_damage_inside_the_tar_is_refused_or_harmless(archive: Path, tmp_path: Path) -> None:
    content, digest, draw = gzip.decompress(archive.read_bytes()), load_bundle(archive).digest, random.Random(2)
    headers = [place for start in (0, *range(512, len(content), 512)) for place in range(start, start + 160)]
    for place in draw.sample(headers, 400):
        damaged = content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :]
        (tmp_path / "damaged.tar.gz").write_bytes(gzip.compress(damaged, compresslevel=1))
        try:
            assert load_bundle(tmp_path / "damaged.tar.gz").digest == digest
        except BundleError as error:
            assert str(error).isprintable()  # noqa: PT017 - padding may change without harm


# ------------------------------------------------------------------ spaces as JSON

SPACES: list[spaces.Space[Any]] = [
    spaces.Discrete(5, start=-2),
    spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, 1], [-2, 3]]),
    spaces.MultiBinary(4),
    spaces.MultiBinary([2, 3]),
    spaces.Box(-1, 1, (2, 2)),
    spaces.Box(np.array([-np.inf, 0.1], np.float32), np.array([2.5, np.inf], np.float32)),
    spaces.Box(0, 255, (4, 4, 3), np.uint8),
    spaces.Box(-np.inf, np.inf, (), np.float64),
    spaces.Tuple([spaces.Discrete(2), spaces.Box(0, 1, (1,))]),
    spaces.Dict({"b": spaces.Discrete(2), "a": spaces.Dict({"x": spaces.MultiBinary(2)})}),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_spaces_and_their_values_survive_json(space: spaces.Space[Any]) -> None:
    text = json.dumps(space_to_json(space), allow_nan=False)
    rebuilt = space_from_json(json.loads(text))
    assert rebuilt == space
    space.seed(0)
    for _ in range(10):
        value = space.sample()
        again = value_from_json(rebuilt, json.loads(json.dumps(value_to_json(space, value), allow_nan=False)))
        assert rebuilt.contains(again)
        assert value_to_json(space, again) == value_to_json(space, value)


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (SPACES[0], 7),
        (SPACES[0], "1"),
        (SPACES[0], 0.0),
        (SPACES[2], [0, 1, 2, 0]),
        (SPACES[2], [0, 0.5, 1, 0]),
        (SPACES[4], [[0.0, 2.0], [0.0, 0.0]]),
        (SPACES[4], [0.0]),
        (SPACES[4], None),
        (SPACES[6], [[[300] * 3] * 4] * 4),
        (SPACES[8], [1]),
        (SPACES[8], 1),
        (SPACES[9], {"b": 1}),
        (SPACES[9], {"b": 1, "a": {"x": [0, 1]}, "c": 0}),
    ],
)
def test_values_outside_a_space_are_refused(space: spaces.Space[Any], value: Any) -> None:
    with pytest.raises(UserError, match="is not a value of the space"):
        value_from_json(space, value)


def test_a_space_without_json_form_is_refused() -> None:
    with pytest.raises(UserError, match="has no JSON form; use Discrete"):
        space_to_json(spaces.Text(5))


def test_bundle_is_what_load_returns(folder: Path) -> None:
    assert isinstance(load_bundle(folder), Bundle)


def test_a_bundle_of_schema_version_1_still_loads() -> None:
    bundle = load_bundle(Path(__file__).with_name("bundle_v1"))
    assert bundle.manifest.schema_version == 1
    assert bundle.policy.act(0) in range(4)
    assert bundle.policy.log_probability(0, bundle.policy.act(0)) == pytest.approx(np.log(0.9 + 0.1 / 4))
