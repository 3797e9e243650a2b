"""The base of the settings of jobs: which of them go into the provenance."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar


class Settings:
    """The base of the frozen dataclasses that jobs are called with.

    `recorded` names the fields that determine the result, in the order of the provenance; the
    others say where it is written and how the work is done.
    """

    recorded: ClassVar[tuple[str, ...]] = ()

    def arguments(self) -> dict[str, Any]:
        """The recorded fields as plain types, for the provenance."""
        values = asdict(self)  # type: ignore[call-overload]
        return {name: values[name] for name in self.recorded}
