"""The descriptions of shards, NPZ files, weights and runs as text in aligned columns."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..console import plural, printable, shortened
from ..contract.provenance import effective_arguments, stages

WIDTH = 80
_LABEL = 13
_NAMED = 8

Rows = Iterator[tuple[str, str]]


def listing(item: Mapping[str, Any]) -> str:
    """The text of one description: its name, labelled lines, and the inputs that were skipped."""
    describe = {"shards": _shards, "npz": _npz, "checkpoint": _checkpoint, "run": _run}
    lines = [shortened(printable(item["name"]))]
    shown = ""
    for label, text in describe[item["kind"]](item):
        for line in _wrapped(text):
            column = "" if label == shown else label
            lines.append(f"  {column:<{_LABEL - 2}}{line}".rstrip())
            shown = label
    lines += [f"  {shortened(printable(line))}" for line in item.get("skipped_lines", [])]
    return "\n".join(lines)


def shared_listing(shared: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each group of data sets that have keys in common."""
    lines = []
    for each in shared:
        sets = ", ".join(map(printable, each["in"]))
        lines.append(shortened(f"{plural(each['count'], 'key')} in each of {sets}"))
    return lines


def _wrapped(text: str) -> list[str]:
    wrapper = textwrap.TextWrapper(WIDTH - _LABEL, break_long_words=False, break_on_hyphens=False)
    return [shortened(line) for line in wrapper.wrap(printable(text))] or [""]


def _shards(item: Mapping[str, Any]) -> Rows:
    if item["complete"] is not None:
        yield "complete", _completeness(item)
    archives = f", {item['archives']:,} archives" if item["archives"] != item["files"] else ""
    yield "shards", f"{item['files']:,}{archives}, {_bytes(item['bytes'])}"
    videos = f" of {plural(item['videos'], 'video')}" if item["videos"] else ""
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
        inputs = item["inputs"].items()
        yield "inputs", ", ".join(f"{count:,} {_INPUTS.get(word, word)}" for word, count in inputs)
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
        return f"yes, {plural(of, 'shard')}"
    total = f" of {plural(of, 'shard')}" if of is not None else ""
    return f"no, {missing:,}{total} missing: {' '.join(_some(item['missing']))}"


def _faults(item: Mapping[str, Any]) -> Rows:
    for one in item["damaged"][:_NAMED]:
        problems = "; ".join(_some(one["problems"], "; and {:,} more"))
        left = f"{plural(one['samples'], 'sample')} can be read"
        yield "damaged", f"{one['name']}: {problems} ({left})"
    if len(item["damaged"]) > _NAMED:
        yield "damaged", f"and {len(item['damaged']) - _NAMED:,} more"
    if item["duplicate_count"]:
        samples = plural(item["duplicate_count"], "sample")
        yield "duplicates", f"{samples} with a key that another has, such as"
        for one in item["duplicates"]:
            yield "duplicates", f"{one['key']} in {' and '.join(dict.fromkeys(one['in']))}"
    for name in _some(item["temporary"], "and {:,} more"):
        yield "temporary", f"{name} (left by a writer that was killed, or being written)"


_NPZ_KINDS = {"arrays": "unrecognised NPZ file", "index": "poses with an index"}


def _npz(item: Mapping[str, Any]) -> Rows:
    yield "kind", _NPZ_KINDS.get(item["type"], item["type"])
    if "poses" in item:
        yield "poses", f"{item['poses']:,} of {plural(item['videos'], 'video')}"
        shares = item["explained_variance"]
        variance = f"{sum(shares):.1%} of the variance, {_shares(shares)}"
        yield "dimensions", f"{item['dimensions']:,} with {variance}"
    if "pairs" in item:
        yield "queries", f"{item['queries']:,}, {item['without_positive']:,} without a positive"
        most, targets = item["positives_each"], plural(item["targets"], "target")
        yield "pairs", f"{item['pairs']:,}, up to {most} each, among {targets}"
        yield "distance", _distances(item["distance"])
    if "samples" in item:
        truth = "with the truth" if item["with_truth"] else "without the truth"
        yield "samples", f"{item['samples']:,}, {truth}"
    if item.get("error_mm") is not None:
        yield "error", f"{item['error_mm']:.2f} mm mean of the joints, root-relative"
    for name, array in item["arrays"].items():
        shape = f" ({', '.join(map(str, array['shape']))})" if array["shape"] else ""
        yield "arrays", f"{name}: {array['dtype']}{shape}"
    yield from (("damaged", problem) for problem in item["problems"])
    yield from _made_by(item["provenance"])


def _distances(quantiles: Mapping[str, float]) -> str:
    told = [f"{name.removeprefix('p')} % {value:.4g}" for name, value in quantiles.items()]
    return f"of the nearest: {', '.join(told)}" if told else "none"


def _checkpoint(item: Mapping[str, Any]) -> Rows:
    unknown = item["type"] == "tensors"
    yield "kind", "tensors of an unrecognised network" if unknown else item["type"]
    yield "weights", _weights(item)


def _weights(item: Mapping[str, Any]) -> str:
    about = [str(item[key]) for key in ("arch", "head") if item.get(key)]
    about += [f"{item['size']} px"] if "size" in item else []
    about += [f"bone {item['bone_mm']:.1f} mm"] if "bone_mm" in item else []
    about += [f"step {item['step']:,}"] if "step" in item else []
    about += [
        plural(item["tensors"], "tensor"),
        plural(item["parameters"], "parameter"),
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
        told = [f"{name} {_value(data[name])}" for name in data if "sha256" not in name]
        yield "data", ", ".join(told)
    yield from _made_by(item["provenance"])


def _made_by(record: Any) -> Rows:
    if isinstance(record, dict):
        yield from (("made by", _stage(stage)) for stage in stages(record))


def _stage(stage: Mapping[str, Any], inputs: bool = True) -> str:
    """A stage in a line: its version, arguments, seed, models and inputs."""
    arguments, model = effective_arguments(stage), _table(stage, "model")
    words = [f"{name} {_value(value)}" for name, value in arguments.items()]
    words += [f"seed {stage['seed']}"] if "seed" in stage else []
    words += [f"{name} {str(digest)[:8]}" for name, digest in model.items()]
    words += _sources(stage) if inputs else []
    return f"{stage.get('stage', '?')} {stage.get('version', '')}: {', '.join(words)}"


def _table(stage: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = stage.get(name)
    return found if isinstance(found, dict) else {}


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
    told += [f"{suffix} in {count:,}" for suffix, count in members.items() if count < samples]
    return "; ".join(told)


def _some(names: Sequence[str], rest: str = "... and {:,} more") -> list[str]:
    more = len(names) - _NAMED
    return [*names[:_NAMED], *([rest.format(more)] if more > 0 else [])]


def _bytes(count: int) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.3g} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:.3g} TB"
