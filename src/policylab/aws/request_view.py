"""Reading a request that may be malformed: every step remembers its path, and what is absent or ill-typed is empty."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from policylab.findings import Finding, Severity


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """A value inside a request and its path.

    >>> view = View({"Tags": [{"Key": "a"}]})
    >>> [tag["Key"].path for tag in view["Tags"].items()]
    ['Tags[0].Key']
    >>> view["Missing"]["Deeper"].given
    False
    """

    value: Any
    path: str = ""

    def __getitem__(self, key: str) -> View:
        path = f"{self.path}.{key}" if self.path else key
        return View(self.value.get(key) if isinstance(self.value, Mapping) else None, path)

    def items(self) -> list[View]:
        """The members of a list; none if it is no list."""
        values = self.value if isinstance(self.value, list | tuple) else []
        return [View(value, f"{self.path}[{index}]") for index, value in enumerate(values)]

    def entries(self) -> Iterator[tuple[str, View]]:
        """Key and value of a mapping; none if it is no mapping."""
        for key, value in self.value.items() if isinstance(self.value, Mapping) else ():
            yield str(key), View(value, f"{self.path}.{key}")

    @property
    def given(self) -> bool:
        """Whether the field is present and not null."""
        return self.value is not None

    @property
    def text(self) -> str:
        """The value if it is a string, else ``""``."""
        return self.value if isinstance(self.value, str) else ""

    @property
    def number(self) -> float | None:
        """The value if it is a number, else None."""
        return self.value if isinstance(self.value, int | float) and not isinstance(self.value, bool) else None

    @property
    def size(self) -> int:
        """Length of a string, list or mapping; 0 for anything else."""
        return len(self.value) if isinstance(self.value, str | list | tuple | Mapping) else 0

    def found(self, rule: str, remedy: str, *, value: Any = None, severity: Severity = "error") -> Finding:
        """Return a finding about this place."""
        return Finding(self.path, rule, self.value if value is None else value, remedy, severity)
