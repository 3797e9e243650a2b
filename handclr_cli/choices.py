"""The words that options and settings are chosen from, where nothing heavy is imported for them."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

Arch = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
Bone = Literal["training", "true"]
Cache = Literal["auto", "none", "ram", "gpu"]
CropSource = Literal["given", "detected"]
EngineName = Literal["auto", "exact-cpu", "exact-gpu", "hnsw"]
HeadName = Literal["detnet", "softargmax", "regress", "guided"]
LayoutName = Literal["freihand", "dexycb", "assemblyhands"]
LookName = Literal["once", "border", "tiles"]
MethodName = Literal["handclr", "handclr-soft", "peclr", "tempclr", "simclr", "simhand"]
NearDuplicates = Literal["report", "exclude"]
NormalisationName = Literal["crop", "root", "root-scale", "box"]
OptimizerName = Literal["adamw", "lars", "adam"]
PoseKind = Literal["2d", "world", "both"]
PositiveSource = Literal["self", "neighbour", "mined"]
PrecisionName = Literal["auto", "bf16", "fp32"]
RankName = Literal["best", "worst", "random", "quantiles"]
Shell = Literal["bash", "zsh", "fish"]
TableFormat = Literal["csv", "jsonl", "npz"]
TargetKind = Literal["positive", "pose"]
Undo = Literal["none", "extent", "raw-extent", "crop"]
Weighting = Literal["none", "linear", "sigmoid"]
WorldName = Literal["lab", "wild", "any"]

FreihandSplit = Literal["train", "eval"]
AssemblyhandsSplit = Literal["train", "val"]
DexycbSplit = Literal[
    "all",
    "s0-train",
    "s0-val",
    "s0-test",
    "s1-train",
    "s1-val",
    "s1-test",
    "s2-train",
    "s2-val",
    "s2-test",
    "s3-train",
    "s3-val",
    "s3-test",
]


class TrackerName(StrEnum):
    """Where a run can be logged; of lists the front door takes no literals."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    MLFLOW = "mlflow"


# What is named in the place of a model for MediaPipe's own 3D landmarks.
MEDIAPIPE = "mediapipe"
