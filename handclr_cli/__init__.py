"""handclr: from raw footage of hands to a pre-trained encoder and a 3D hand pose model.

Everything in `__all__` is imported when it is first asked for, and costs what it imports itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .contract.version import __version__ as __version__

if TYPE_CHECKING:
    from .contract.errors import HandclrError as HandclrError
    from .contract.errors import UsageError as UsageError
    from .contract.index import ShardIndex as ShardIndex
    from .datasets.import_job import run_import as run_import
    from .datasets.import_settings import ImportAssemblyhandsSettings as ImportAssemblyhandsSettings
    from .datasets.import_settings import ImportDexycbSettings as ImportDexycbSettings
    from .datasets.import_settings import ImportFreihandSettings as ImportFreihandSettings
    from .datasets.import_settings import ImportHand100mSettings as ImportHand100mSettings
    from .evaluation.evaluate_job import CompareSettings as CompareSettings
    from .evaluation.evaluate_job import EvaluateSettings as EvaluateSettings
    from .evaluation.evaluate_job import run_compare as run_compare
    from .evaluation.evaluate_job import run_evaluate as run_evaluate
    from .evaluation.metrics import evaluate_pose as evaluate_pose
    from .footage.extract_job import ExtractSettings as ExtractSettings
    from .footage.extract_job import run_extract as run_extract
    from .footage.keypoints_job import KeypointsSettings as KeypointsSettings
    from .footage.keypoints_job import run_keypoints as run_keypoints
    from .footage.world_poses import WorldPoses as WorldPoses
    from .hand.alignment import bone_scaled as bone_scaled
    from .hand.alignment import joint_errors_mm as joint_errors_mm
    from .hand.alignment import procrustes as procrustes
    from .hand.alignment import root_relative as root_relative
    from .hand.camera import crop_turns as crop_turns
    from .inspection.inspect_job import InspectSettings as InspectSettings
    from .inspection.inspect_job import run_inspect as run_inspect
    from .learning.augmentation import AugmentationConfig as AugmentationConfig
    from .learning.augmentation import Geometry as Geometry
    from .learning.augmentation import View as View
    from .learning.augmentation import apply_view as apply_view
    from .learning.augmentation import draw_view as draw_view
    from .learning.augmentation import transform_points as transform_points
    from .learning.crop_dataset import CropDataset as CropDataset
    from .learning.finetune_job import FinetuneSettings as FinetuneSettings
    from .learning.finetune_job import run_finetune as run_finetune
    from .learning.losses import nt_xent as nt_xent
    from .learning.losses import undo_geometry as undo_geometry
    from .learning.posemodel import PoseModel as PoseModel
    from .learning.posemodel import load_model as load_model
    from .learning.pretrain_job import PretrainSettings as PretrainSettings
    from .learning.pretrain_job import run_pretrain as run_pretrain
    from .prediction.guided import GuidedModel as GuidedModel
    from .prediction.predict_job import run_predict as run_predict
    from .prediction.settings import PredictSettings as PredictSettings
    from .report.demo_job import DemoSettings as DemoSettings
    from .report.demo_job import run_demo as run_demo
    from .similarity.arrays import MinedPositives as MinedPositives
    from .similarity.arrays import PoseEmbedding as PoseEmbedding
    from .similarity.arrays import embed_poses as embed_poses
    from .similarity.arrays import mine as mine
    from .similarity.mine_job import MineSettings as MineSettings
    from .similarity.mine_job import run_mine as run_mine
    from .similarity.pca_job import PcaSettings as PcaSettings
    from .similarity.pca_job import run_pca as run_pca
    from .synth.synth_job import SynthFootageSettings as SynthFootageSettings
    from .synth.synth_job import SynthLabelledSettings as SynthLabelledSettings
    from .synth.synth_job import SynthLayoutSettings as SynthLayoutSettings
    from .synth.synth_job import run_synth_footage as run_synth_footage
    from .synth.synth_job import run_synth_labelled as run_synth_labelled
    from .synth.synth_job import run_synth_layout as run_synth_layout

_HOMES = {
    "HandclrError": "contract.errors",
    "UsageError": "contract.errors",
    "ShardIndex": "contract.index",
    "bone_scaled": "hand.alignment",
    "joint_errors_mm": "hand.alignment",
    "procrustes": "hand.alignment",
    "root_relative": "hand.alignment",
    "crop_turns": "hand.camera",
    "MinedPositives": "similarity.arrays",
    "PoseEmbedding": "similarity.arrays",
    "embed_poses": "similarity.arrays",
    "mine": "similarity.arrays",
    "evaluate_pose": "evaluation.metrics",
    "AugmentationConfig": "learning.augmentation",
    "Geometry": "learning.augmentation",
    "View": "learning.augmentation",
    "apply_view": "learning.augmentation",
    "draw_view": "learning.augmentation",
    "transform_points": "learning.augmentation",
    "CropDataset": "learning.crop_dataset",
    "nt_xent": "learning.losses",
    "undo_geometry": "learning.losses",
    "PoseModel": "learning.posemodel",
    "load_model": "learning.posemodel",
    "ExtractSettings": "footage.extract_job",
    "run_extract": "footage.extract_job",
    "KeypointsSettings": "footage.keypoints_job",
    "run_keypoints": "footage.keypoints_job",
    "WorldPoses": "footage.world_poses",
    "PcaSettings": "similarity.pca_job",
    "run_pca": "similarity.pca_job",
    "MineSettings": "similarity.mine_job",
    "run_mine": "similarity.mine_job",
    "PretrainSettings": "learning.pretrain_job",
    "run_pretrain": "learning.pretrain_job",
    "FinetuneSettings": "learning.finetune_job",
    "run_finetune": "learning.finetune_job",
    "GuidedModel": "prediction.guided",
    "PredictSettings": "prediction.settings",
    "run_predict": "prediction.predict_job",
    "CompareSettings": "evaluation.evaluate_job",
    "EvaluateSettings": "evaluation.evaluate_job",
    "run_compare": "evaluation.evaluate_job",
    "run_evaluate": "evaluation.evaluate_job",
    "ImportAssemblyhandsSettings": "datasets.import_settings",
    "ImportDexycbSettings": "datasets.import_settings",
    "ImportFreihandSettings": "datasets.import_settings",
    "ImportHand100mSettings": "datasets.import_settings",
    "run_import": "datasets.import_job",
    "InspectSettings": "inspection.inspect_job",
    "run_inspect": "inspection.inspect_job",
    "SynthFootageSettings": "synth.synth_job",
    "SynthLabelledSettings": "synth.synth_job",
    "SynthLayoutSettings": "synth.synth_job",
    "run_synth_footage": "synth.synth_job",
    "run_synth_labelled": "synth.synth_job",
    "run_synth_layout": "synth.synth_job",
    "DemoSettings": "report.demo_job",
    "run_demo": "report.demo_job",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
