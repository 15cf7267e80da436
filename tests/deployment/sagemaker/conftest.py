"""Endpoint files with a ``sagemaker`` section."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ACCOUNT = {
    "role_arn": "arn:aws:iam::123456789012:role/policylab",
    "image": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/policylab:1",
    "s3_prefix": "s3://bucket/policylab",
}


def _merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = _merged(found[key], value) if both else value
    return found


@pytest.fixture
def write(tmp_path: Path, bundles: dict[str, Path]) -> Any:
    """Write the file of an endpoint ``lake`` of one variant; keywords replace or add sections."""

    def written(file: str = "endpoint.yaml", **sections: Any) -> Path:
        base = {
            "name": "lake",
            "variants": [{"name": "stable", "bundle": str(bundles["left"])}],
            "guardrail": {"bake_s": 60},
            "sagemaker": ACCOUNT,
        }
        path = tmp_path / file
        path.write_text(json.dumps(_merged(base, sections)))  # JSON is YAML
        return path

    return written
