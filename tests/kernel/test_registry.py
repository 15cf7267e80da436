"""Registries load lazily, suggest names, and let third parties add but never replace."""

from importlib.metadata import EntryPoint

import pytest

from policylab import registry
from policylab.errors import MissingExtraError, UnknownNameError
from policylab.registry import Registry


def test_a_third_party_adds_a_name_and_cannot_replace_ours(monkeypatch):
    asked = []

    def entry_points(*, group):
        asked.append(group)
        return [EntryPoint("theirs", "fractions:Fraction", group), EntryPoint("ours", "fractions:Fraction", group)]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    shapes = Registry("shape", {"ours": "decimal:Decimal"})
    assert shapes.names() == ["ours", "theirs"]
    assert shapes.load("theirs").__name__ == "Fraction"
    assert shapes.load("ours").__name__ == "Decimal"
    assert asked == ["policylab.shapes"]


def test_an_unknown_name_suggests_and_lists():
    with pytest.raises(UnknownNameError, match=r"unknown shape 'ordred'; did you mean 'ordered'\? \(known: ordered\)"):
        Registry("shape", {"ordered": "collections:OrderedDict"}).load("ordred")


def test_a_missing_library_is_one_sentence():
    with pytest.raises(MissingExtraError, match="shape 'far' cannot be loaded: No module named 'not_there'"):
        Registry("shape", {"far": "not_there:Thing"}).load("far")
