"""$ python -m handclr_cli.contract.document PAGE: rewrite its tables from the declarations."""

from __future__ import annotations

import sys
from pathlib import Path

from .fields import FIELDS
from .npz import KINDS, kind_maker


def sample_table() -> str:
    """The members of a sample as a Markdown table."""
    rows = ["| member | dtype, shape | meaning | written by |", "|---|---|---|---|"]
    for field in FIELDS:
        shape = f" ({', '.join(map(str, field.shape))})" if field.shape else ""
        rows.append(
            f"| `{field.suffix}` | {field.dtype}{shape} | {field.meaning} "
            f"| {', '.join(field.writers)} |"
        )
    return "\n".join(rows)


def npz_table() -> str:
    """The arrays of the NPZ files as a Markdown table."""
    rows = ["| file | array | dtype, shape | meaning |", "|---|---|---|---|"]
    for kind, arrays in KINDS.items():
        for array in arrays:
            dtype = "bytes" if array.dtype == "S" else array.dtype
            name = f"`{array.name}`" + (" (optional)" if array.optional else "")
            shape = ", ".join(map(str, array.shape))
            rows.append(
                f"| {kind} (`{kind_maker(kind)}`) | {name} | {dtype} ({shape}) | {array.meaning} |"
            )
    return "\n".join(rows)


def rewrite(text: str) -> str:
    """Put the tables between their `<!-- contract: NAME -->` and `<!-- end -->` marks."""
    for name, table in (("sample", sample_table()), ("npz", npz_table())):
        start, mark, rest = text.partition(f"<!-- contract: {name} -->\n")
        if mark:
            text = f"{start}{mark}{table}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"
    return text


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(rewrite(path.read_text(encoding="utf-8")), encoding="utf-8")
