"""What all settings of jobs have in common: which of them decide what comes out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar


class Settings:
    """The base of the frozen dataclasses that jobs are called with.

    `recorded` names the fields that decide what comes out, in the order of the provenance; the others
    say where it goes and how the work is done.
    """

    recorded: ClassVar[tuple[str, ...]] = ()

    def arguments(self) -> dict[str, Any]:
        """The recorded fields as plain types, for the provenance."""
        values = asdict(self)  # type: ignore[call-overload]
        return {name: values[name] for name in self.recorded}
