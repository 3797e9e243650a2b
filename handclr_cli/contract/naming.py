"""What users call things by that shards do not name: a field of the JSON, or a pattern on keys."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import UsageError
from .sample import Sample

_FIELD = re.compile(r"[A-Za-z_]\w*")


def is_field(word: str) -> bool:
    """Whether this names a field of the JSON; everything else is a regular expression."""
    return _FIELD.fullmatch(word) is not None


@dataclass(frozen=True)
class KeyPattern:
    """A regular expression, searched for in keys.

    It finds the text of its first group, or all that it matches where it has none.
    """

    expression: re.Pattern[str]

    @classmethod
    def of(cls, text: str, setting: str) -> KeyPattern:
        """Compile a pattern; raises UsageError, naming the setting, where it is none."""
        try:
            return cls(re.compile(text))
        except re.error as error:
            raise UsageError(f"not a regular expression: {error}", setting=setting) from error

    def find(self, key: str) -> str | None:
        """What it finds; None where it matches nowhere or its group took no part in the match."""
        match = self.expression.search(key)
        return match[min(self.expression.groups, 1)] if match else None


@dataclass(frozen=True)
class Naming:
    """A field of the JSON, or else a pattern on keys, which names something of each sample."""

    field: str | None
    pattern: KeyPattern | None

    @classmethod
    def of(cls, word: str, setting: str) -> Naming:
        """Read what the user wrote; raises UsageError as KeyPattern does."""
        if is_field(word):
            return cls(word, None)
        return cls(None, KeyPattern.of(word, setting))

    def find(self, sample: Sample) -> str | None:
        """The name of a sample; None where it has none."""
        if self.pattern:
            return self.pattern.find(sample.key)
        value = sample.info.get(str(self.field))
        return None if value is None else str(value)

    @property
    def nowhere(self) -> str:
        """What is wrong where nothing is found, in words."""
        return "found in no key" if self.pattern else "no sample has this field in its JSON"
