"""What is in shards, arrays and runs, as aligned text for people."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

WIDTH = 100
_LABEL = 13
_NAMED = 8

Rows = Iterator[tuple[str, str]]


def listing(item: Mapping[str, Any]) -> str:
    """The text of one item of `handclr inspect --json`: its name, then labelled lines, then what
    was skipped.
    """
    rows = {"shards": _shards, "npz": _npz, "checkpoint": _checkpoint, "run": _run}[item["kind"]](
        item
    )
    lines = [printable(item["name"])]
    before = ""
    for label, text in rows:
        wrapped = textwrap.wrap(
            printable(text), WIDTH - _LABEL, break_long_words=False, break_on_hyphens=False
        )
        for number, line in enumerate(wrapped or [""]):
            lines.append(
                f"  {'' if number or label == before else label:<{_LABEL - 2}}{line}".rstrip()
            )
        before = label
    lines += [f"  {printable(line)}" for line in item.get("skipped_lines", [])]
    return "\n".join(lines)


def shared_listing(shared: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each group of data sets that have keys in common."""
    return [
        f"{_plural(each['count'], 'key')} in each of {', '.join(map(printable, each['in']))}"
        for each in shared
    ]


def printable(text: str) -> str:
    """Text without what a terminal would obey: names in shards are anybody's."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _shards(item: Mapping[str, Any]) -> Rows:
    if item["complete"] is not None:
        yield "complete", _completeness(item)
    archives = f", {item['archives']:,} archives" if item["archives"] != item["files"] else ""
    yield "shards", f"{item['files']:,}{archives}, {_bytes(item['bytes'])}"
    videos = f" of {_plural(item['videos'], 'video')}" if item["videos"] else ""
    yield "samples", f"{item['samples']:,}{videos}"
    sides = item["sides"]
    if sides["left"] or sides["right"]:
        unknown = f", {sides['unknown']:,} unknown" if sides["unknown"] else ""
        yield "hands", f"{sides['left']:,} left, {sides['right']:,} right in the source{unknown}"
    if item["members"]:
        yield "members", _members(item["members"], item["samples"])
    if item["crop_sizes"]:
        looked = sum(item["crop_sizes"].values())
        yield "crops", f"{', '.join(_some(list(item['crop_sizes'])))} px, of {looked:,} looked at"
    if item["inputs"]:
        yield (
            "inputs",
            ", ".join(
                f"{count:,} {_INPUTS.get(word, word)}" for word, count in item["inputs"].items()
            ),
        )
    for word, count in item["without_sample"].items():
        yield "no sample", f"{word}: {count:,}"
    for word, count in item["skipped"].items():
        yield "skipped", f"{word}: {count:,}"
    yield from _faults(item)
    for variant in item["provenance"][:1]:
        for stage in variant["stages"]:
            yield "made by", _stage(stage, inputs=variant["shards"] == 1)
    yield from (("warning", text) for text in item["warnings"])


_INPUTS = {"no hand": "frames without a hand", "no keypoints": "crops without keypoints"}


def _completeness(item: Mapping[str, Any]) -> str:
    of, missing = item["shards_of_job"], item["missing_count"]
    if item["complete"]:
        return f"yes, {_plural(of, 'shard')}"
    total = f" of {_plural(of, 'shard')}" if of is not None else ""
    return f"no, {missing:,}{total} missing: {' '.join(_some(item['missing']))}"


def _faults(item: Mapping[str, Any]) -> Rows:
    for one in item["damaged"][:_NAMED]:
        problems = "; ".join(_some(one["problems"], "; and {:,} more"))
        yield (
            "damaged",
            f"{one['name']}: {problems} ({_plural(one['samples'], 'sample')} before that)",
        )
    if len(item["damaged"]) > _NAMED:
        yield "damaged", f"and {len(item['damaged']) - _NAMED:,} more"
    if item["duplicate_count"]:
        yield (
            "duplicates",
            f"{_plural(item['duplicate_count'], 'sample')} with a key that another has, such as",
        )
        for one in item["duplicates"]:
            yield "duplicates", f"{one['key']} in {' and '.join(dict.fromkeys(one['in']))}"
    for name in _some(item["temporary"], "and {:,} more"):
        yield "temporary", f"{name} (left by a writer that was killed, or being written)"


def _npz(item: Mapping[str, Any]) -> Rows:
    yield (
        "kind",
        {"arrays": "NPZ file of no kind that handclr writes", "index": "poses with an index"}.get(
            item["type"], item["type"]
        ),
    )
    if "poses" in item:
        yield "poses", f"{item['poses']:,} of {_plural(item['videos'], 'video')}"
        shares = item["explained_variance"]
        yield (
            "dimensions",
            f"{item['dimensions']:,} with {sum(shares):.1%} of the variance, {_shares(shares)}",
        )
    if "pairs" in item:
        yield "queries", f"{item['queries']:,}, {item['without_positive']:,} without a positive"
        yield (
            "pairs",
            (
                f"{item['pairs']:,}, up to {item['positives_each']} each, among"
                f" {_plural(item['targets'], 'target')}"
            ),
        )
        told = ", ".join(
            f"{name.removeprefix('p')} % {value:.4g}" for name, value in item["distance"].items()
        )
        yield "distance", f"of the nearest: {told}" if told else "none"
    if "samples" in item:
        yield (
            "samples",
            f"{item['samples']:,}, {'with' if item['with_truth'] else 'without'} the truth",
        )
    if item.get("error_mm") is not None:
        yield "error", f"{item['error_mm']:.2f} mm mean of the joints, root-relative"
    for name, array in item["arrays"].items():
        shape = f" ({', '.join(map(str, array['shape']))})" if array["shape"] else ""
        yield "arrays", f"{name}: {array['dtype']}{shape}"
    yield from (("damaged", problem) for problem in item["problems"])
    yield from _made_by(item["provenance"])


def _checkpoint(item: Mapping[str, Any]) -> Rows:
    yield (
        "kind",
        {"tensors": "tensors of no network that handclr knows"}.get(item["type"], item["type"]),
    )
    yield "weights", _weights(item)


def _weights(item: Mapping[str, Any]) -> str:
    about = [str(item[key]) for key in ("arch", "head") if item.get(key)]
    about += [f"{item['size']} px"] if "size" in item else []
    about += [f"bone {item['bone_mm']:.1f} mm"] if "bone_mm" in item else []
    about += [f"step {item['step']:,}"] if "step" in item else []
    about += [
        _plural(item["tensors"], "tensor"),
        _plural(item["parameters"], "parameter"),
        *item["dtypes"],
    ]
    return ", ".join(about)


def _run(item: Mapping[str, Any]) -> Rows:
    planned = f" of {item['steps_planned']:,}" if item["steps_planned"] is not None else ""
    yield "complete", "yes" if item["complete"] else "no, run the same command again"
    yield "steps", f"{item['steps']:,}{planned}"
    for label, record in (("last", item["last"]), ("measured", item["measured"])):
        if record:
            yield label, ", ".join(f"{name} {_value(value)}" for name, value in record.items())
    for each in item["weights"]:
        yield "weights", f"{each['name'].rpartition('/')[2]}: {_weights(each)}"
    yield from (("damaged", problem) for problem in item["problems"])
    data = item["provenance"].get("data")
    if isinstance(data, dict):
        yield (
            "data",
            ", ".join(
                f"{name} {_value(value)}" for name, value in data.items() if "sha256" not in name
            ),
        )
    yield from _made_by(item["provenance"])


def _made_by(record: Any) -> Rows:
    if not isinstance(record, dict):
        return
    history = record.get("history")
    for stage in [*(history if isinstance(history, list) else []), record]:
        if isinstance(stage, dict):
            yield "made by", _stage(stage)


def _stage(stage: Mapping[str, Any], inputs: bool = True) -> str:
    """A stage in a line: its version, arguments, seed, models and inputs."""
    arguments = stage.get("arguments")
    words = [
        f"{name} {_value(value)}"
        for name, value in (arguments if isinstance(arguments, dict) else {}).items()
    ]
    words += [f"seed {stage['seed']}"] if "seed" in stage else []
    model = stage.get("model")
    words += [
        f"{name} {str(digest)[:8]}"
        for name, digest in (model if isinstance(model, dict) else {}).items()
    ]
    words += _sources(stage) if inputs else []
    return f"{stage.get('stage', '?')} {stage.get('version', '')}: {', '.join(words)}"


def _sources(stage: Mapping[str, Any]) -> list[str]:
    names, count = stage.get("inputs"), stage.get("input_count")
    if not isinstance(names, list) or not names:
        return []
    more = (count if isinstance(count, int) else len(names)) - 1
    return [f"from {names[0]}{f' and {more:,} more' if more else ''}"]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _shares(shares: Sequence[float]) -> str:
    return f"the first {shares[0]:.1%}" if shares else "none"


def _members(members: Mapping[str, int], samples: int) -> str:
    everywhere = [suffix for suffix, count in members.items() if count == samples]
    told = [f"{', '.join(everywhere)} in all"] if everywhere else []
    return "; ".join(
        [*told, *(f"{suffix} in {count:,}" for suffix, count in members.items() if count < samples)]
    )


def _some(names: Sequence[str], rest: str = "... and {:,} more") -> list[str]:
    more = len(names) - _NAMED
    return [*names[:_NAMED], *([rest.format(more)] if more > 0 else [])]


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _bytes(count: int) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.3g} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:.3g} TB"
