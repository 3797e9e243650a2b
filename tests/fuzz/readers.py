"""Which inputs are changed how, and which commands read them."""

from __future__ import annotations

from dataclasses import dataclass

from . import mutations
from .mutations import Change

PREDICT = "--device cpu --workers 0 --batch 8"


@dataclass(frozen=True)
class Reader:
    """A kind of input: its seeds, a pattern of files; its changes; the commands that are given it.

    In a command, {x} is the changed input, {s} the folder of seeds, {o} a new output without its
    suffix. Where `beside` names a folder of seeds, {x} is a copy of it with the input in its place.
    `torch`: the commands import torch, and take longer.
    """

    seed: str
    change: Change
    commands: tuple[str, ...]
    beside: str = ""
    torch: bool = False


_ANY_TAR = (
    "inspect {x}",
    "inspect {x} --json --skipped --sheet {o}.png",
    "pca {x} --dim 4 -o {o}.npz",
    "pca {x} --basis {s}/pose.npz -o {o}.npz",
    "mine {s}/pose.npz --exclude-by subject --shards {x} -o {o}.npz",
    "mine {s}/pose.npz --shards {x} --sheet {o}.png -o {o}.npz",
    "mine {s}/pose.npz --truth {x} --report {o}.json -o {o}.npz",
)
_TRAINED = (
    f"predict {{x}} --model {{s}}/model.pt {PREDICT} -o {{o}}.npz",
    f"predict {{x}} --model {{s}}/model.pt {PREDICT} --overlay {{o}}.mp4 --footage {{s}}/film.mp4 "
    "-o {o}.npz",
    f"evaluate {{x}} --model {{s}}/model.pt {PREDICT} --bone true -o {{o}}.npz",
    "finetune {x} --arch resnet18 --head regress --size 32 --batch 4 --epochs 1 --device cpu "
    "--workers 0 --hold-out 0.4 --run {o}",
    "pretrain {x} --method peclr --arch resnet18 --size 32 --batch 2 --epochs 1 --device cpu "
    "--workers 0 --run {o}",
)
_POSE = (
    "inspect {x}",
    "mine {x} -o {o}.npz",
    "mine {x} --top-k 3 --distinct-videos --symmetric --exclude-by '(film.)' -o {o}.npz",
    "mine {x} --near-duplicates exclude --plot {o}.png -o {o}.npz",
    "mine {x} --engine hnsw -o {o}.npz",
    "mine {s}/pose.npz --against {x} -o {o}.npz",
    "pca {s}/hands.tar --basis {x} -o {o}.npz",
)
_WEIGHTS = (
    "inspect {x}",
    f"predict {{s}}/labelled.tar --model {{x}} {PREDICT} -o {{o}}.npz",
    "finetune {s}/labelled.tar --encoder {x} --head regress --size 32 --batch 4 --epochs 1 "
    "--device cpu --workers 0 --run {o}",
)
_BOXES = "extract {s}/film.mp4 --detections {x} --workers 0 --size 32 -o {o}.tar"
_GO_ON = (
    "extract {s}/film.mp4 --detections {s}/boxes.csv --workers 0 --size 32 -o {x}/crops-%06d.tar"
)
_LOOK = "extract {x} --detections {s}/boxes.csv --workers 0 --size 32 -o {o}.tar"
_SEE = "extract {x} --detections {s}/pictures.csv --workers 0 --size 32 -o {o}.tar"
_CHECK = "--workers 0 --check {o}.png --report {o}.json -o {o}.tar"
_AGAIN = (
    "finetune {s}/labelled.tar --arch resnet18 --head regress --size 32 --batch 4 --epochs 1 "
    "--device cpu --workers 0 --run {x}"
)

READERS: dict[str, Reader] = {
    "tar": Reader("hands.tar", mutations.change_tar, _ANY_TAR),
    "labelled tar": Reader(
        "labelled.tar",
        mutations.change_tar,
        (*_ANY_TAR[:2], "evaluate {x} --predictions {s}/predictions.npz -o {o}.npz"),
    ),
    "unit": Reader(
        "shard-000000.tar",
        mutations.change_tar,
        ("inspect {x} --skipped", "pca {x} --dim 2 -o {o}.npz"),
    ),
    "tar for a network": Reader("labelled.tar", mutations.change_tar, _TRAINED, torch=True),
    "shard of a job": Reader(
        "done/crops-*.tar",
        mutations.change_tar,
        (_GO_ON, f"{_GO_ON} --dry-run", f"{_GO_ON} --overwrite"),
        "done",
    ),
    "pose": Reader("pose.npz", mutations.change_zip, _POSE),
    "graph": Reader(
        "pool.hnsw",
        mutations.change_zip,
        (
            "inspect {x}",
            "mine {s}/pose.npz --engine hnsw --index {x} -o {o}.npz",
            "mine {x} -o {o}.npz",
        ),
    ),
    "pairs": Reader(
        "pairs.npz",
        mutations.change_zip,
        (
            "inspect {x}",
            "pretrain {s}/hands.tar --pairs {x} --arch resnet18 --size 32 --batch 2 --epochs 1 "
            "--device cpu --workers 0 --run {o}",
        ),
        torch=True,
    ),
    "predictions": Reader(
        "predictions.npz",
        mutations.change_zip,
        (
            "inspect {x}",
            "evaluate {s}/labelled.tar --predictions {x} --plot {o}.png -o {o}.npz",
            "evaluate --compare {x} {s}/predictions.npz",
            "evaluate --compare {s}/predictions.npz {x} --table",
        ),
    ),
    "model": Reader("model.pt", mutations.change_checkpoint, _WEIGHTS, torch=True),
    "run's state": Reader("run/last.pt", mutations.change_checkpoint, (_AGAIN,), "run", torch=True),
    "run's log": Reader(
        "run/log.jsonl", mutations.change_json, ("inspect {x}", _AGAIN), "run", torch=True
    ),
    "run's configuration": Reader(
        "run/config.json", mutations.change_json, ("inspect {x}", _AGAIN), "run", torch=True
    ),
    "options, TOML": Reader(
        "options.toml", mutations.change_text, ("finetune gone.tar --config {x}",)
    ),
    "options, JSON": Reader(
        "run/config.json", mutations.change_json, ("finetune gone.tar --config {x}",)
    ),
    "boxes, CSV": Reader("boxes.csv", mutations.change_text, (_BOXES,)),
    "boxes, JSON lines": Reader("boxes.jsonl", mutations.change_json, (_BOXES,)),
    "boxes, JSON": Reader("boxes.json", mutations.change_json, (_BOXES,)),
    "png": Reader("film.png", mutations.change_bytes, (_SEE,)),
    "jpg": Reader("film.jpg", mutations.change_bytes, (_SEE,)),
    "webp": Reader("film.webp", mutations.change_bytes, (_SEE,)),
    "tif": Reader("film.tif", mutations.change_bytes, (_SEE,)),
    "film": Reader("film.mp4", mutations.change_bytes, (_LOOK, f"{_LOOK} --strict")),
    "landmarker": Reader(
        "hand.task",
        mutations.change_zip,
        ("keypoints {s}/shard-000000.tar --landmarker {x} --dry-run -o {o}-%06d.tar",),
    ),
    "FreiHAND": Reader(
        "freihand/*/training_*.json",
        mutations.change_json,
        (f"import freihand {{x}} {_CHECK}",),
        "freihand",
    ),
    "DexYCB's calibration": Reader(
        "dexycb/**/*.yml",
        mutations.change_text,
        (f"import dexycb {{x}} --split all {_CHECK}",),
        "dexycb",
    ),
    "DexYCB's labels": Reader(
        "dexycb/**/labels_*.npz",
        mutations.change_zip,
        (f"import dexycb {{x}} --split all {_CHECK}",),
        "dexycb",
    ),
    "AssemblyHands": Reader(
        "assemblyhands/annotations/train/*.json",
        mutations.change_json,
        (f"import assemblyhands {{x}} {_CHECK}",),
        "assemblyhands",
    ),
    "Hand100M": Reader(
        "annotations.json",
        mutations.change_json,
        (f"import hand100m {{x}} --root {{s}}/frames --pairs {{o}}.npz {_CHECK}",),
    ),
}
