"""The endpoint file: every mistake with its place, and paths that are relative to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from policylab.config import parse, validate
from policylab.deployment.endpoint import EndpointConfig, endpoint_of_bundle, load_endpoint
from policylab.errors import ConfigError


def written(folder: Path, text: str) -> Path:
    path = folder / "endpoint.yaml"
    path.write_text(text)
    return path


def test_every_mistake_is_told_with_line_and_column(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """\
name: lake_1
variants:
  - {name: stable, bundel: x, weight: -1}
limits: {body_bytes: 0}
gardrail: {kind: canary}
""",
    )
    with pytest.raises(ConfigError, match=r".") as error:
        load_endpoint(path)
    findings = str(error.value).replace(str(path), "endpoint.yaml").splitlines()
    assert findings == [
        "endpoint.yaml:1:1: name: a name has letters, digits and inner hyphens, at most 63, got 'lake_1'",
        "endpoint.yaml:3:5: variants.0.bundle: required, but missing",
        "endpoint.yaml:3:31: variants.0.weight: Input should be greater than or equal to 0, got -1",
        "endpoint.yaml:3:20: variants.0.bundel: unknown key; did you mean 'bundle'?",
        "endpoint.yaml:4:10: limits.body_bytes: Input should be greater than or equal to 1, got 0",
        "endpoint.yaml:5:1: gardrail: unknown key; did you mean 'guardrail'?",
    ]


def test_a_bundle_that_is_not_there_is_told_with_its_place(tmp_path: Path) -> None:
    path = written(tmp_path, "name: lake\nvariants:\n  - {name: stable, bundle: nowhere}\n")
    with pytest.raises(ConfigError, match=r"endpoint\.yaml:3:20: variants\.0\.bundle: no such bundle: .*nowhere"):
        load_endpoint(path)


def test_paths_are_relative_to_the_file(bundles: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "left").symlink_to(bundles["left"])
    path = written(tmp_path, "name: lake\nvariants: [{name: a, bundle: left}]\ncapture: {folder: data}\n")
    config = load_endpoint(path, overrides=["variants.0.weight=3", "capture.sampling=0.5"])
    assert config.variants[0].bundle == tmp_path / "left"
    assert config.variants[0].weight == 3
    assert config.capture is not None
    assert (config.capture.folder, config.capture.sampling) == (tmp_path / "data", 0.5)


def test_the_file_of_the_documentation_is_valid() -> None:
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    file, *sections = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    config = validate(EndpointConfig, parse("".join([file, *sections]), "serving.md"))
    assert (config.name, config.guardrail.steps) == ("lake", (0.1, 1.0))
    others = re.findall(r"^```yaml \w+\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert others
    for other in others:
        validate(EndpointConfig, parse(other, "serving.md"))


def test_a_bundle_alone_is_an_endpoint(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = endpoint_of_bundle(bundles["left"], overrides=["limits.batch=4"])
    assert (config.name, config.limits.batch) == ("policy", 4)
    with pytest.raises(ConfigError, match=r"--set limits\.bach=4: limits\.bach: unknown key; did you mean 'batch'"):
        endpoint_of_bundle(bundles["left"], overrides=["limits.bach=4"])


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"variants": []}, "at least one variant"),
        ({"variants": [{"name": "a", "bundle": "x", "weight": 0}]}, "must not all be 0"),
        ({"shadows": [{"name": "A", "bundle": "x"}]}, "differ in more than case"),
        ({"limits": {"deadline_ms": 5}}, "needs a fallback"),
        ({"name": "a" * 64}, "at most 63"),
        ({"name": "-a"}, "inner hyphens"),
        ({"name": "a\n"}, "inner hyphens"),
    ],
)
def test_what_makes_no_sense_is_refused(sections: dict[str, Any], message: str) -> None:
    valid = {"name": "lake", "variants": [{"name": "a", "bundle": "x"}]}
    EndpointConfig.model_validate(valid)
    with pytest.raises(ValueError, match=message):
        EndpointConfig.model_validate({**valid, **sections})
