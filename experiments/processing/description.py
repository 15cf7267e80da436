"""The description of `policylab process`: what is read, what is done with it, where the result goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, PositiveInt, model_validator

from policylab.config import Settings, load

STOP_WORDS = [
    "a",
    "an",
    "and",
    "are",
    "as",
    "at",
    "be",
    "been",
    "but",
    "by",
    "for",
    "from",
    "had",
    "has",
    "have",
    "he",
    "her",
    "his",
    "i",
    "if",
    "in",
    "into",
    "is",
    "it",
    "its",
    "me",
    "my",
    "not",
    "of",
    "on",
    "or",
    "our",
    "she",
    "so",
    "than",
    "that",
    "the",
    "their",
    "them",
    "they",
    "this",
    "to",
    "was",
    "we",
    "were",
    "what",
    "when",
    "which",
    "who",
    "will",
    "with",
    "you",
    "your",
]
"""English words that tell little of what a text is about."""


class TextColumn(Settings):
    """A column of texts that becomes counts of words.

    Rare words are kept, for they tell texts apart; stop words are dropped.
    """

    column: str
    stop_words: tuple[str, ...] = Field(default=tuple(STOP_WORDS), description="words to drop; default: English ones")


class Prepare(Settings):
    """Clean a table, encode it as numbers and write it as Parquet."""

    kind: Literal["prepare"] = "prepare"
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,39}$")
    input: str = Field(description="CSV, JSON lines (.jsonl) or Parquet file")
    output: str = Field(description="folder that receives data.parquet and encoding.json")
    fill: dict[str, JsonValue] = Field(default_factory=dict, description="column -> what stands for a missing value")
    drop_missing: bool = Field(default=True, description="drop rows that still lack a value")
    drop_duplicates: bool = Field(default=True, description="keep the first of equal rows")
    categorical: tuple[str, ...] = Field(default=(), description="columns to encode as numbers from 0, in sorted order")
    text: tuple[TextColumn, ...] = Field(default=(), description="columns to turn into counts of words")

    @model_validator(mode="after")
    def _columns_have_one_encoding(self) -> Self:
        names = [*self.categorical, *(text.column for text in self.text)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"column '{twice[0]}' is to be encoded twice; name it once, as categorical or as text")
        return self


class Evaluate(Settings):
    """Value a policy bundle in its environment."""

    kind: Literal["evaluate"] = "evaluate"
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,39}$")
    input: str = Field(description="folder or model.tar.gz of a policy bundle")
    output: str = Field(description="folder that receives evaluation.json")
    episodes: PositiveInt = 100
    seed: int = Field(default=0, ge=0)


Process = Annotated[Prepare | Evaluate, Field(discriminator="kind")]


class Description(Settings):
    """One piece of work; the file has the key ``process``."""

    process: Process


def read_description(path: Path, *, overrides: tuple[str, ...] = ()) -> Prepare | Evaluate:
    """Read a description.

    Raises:
        ConfigError: every finding, one per line, with its place.
    """
    return load(Description, path, overrides=overrides).process
