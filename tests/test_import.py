"""$ handclr import freihand, in real subprocesses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from labelled_helpers import error_line, handclr

from handclr_cli.benchmarks.camera import project
from handclr_cli.contract.fields import INTRINSICS
from handclr_cli.contract.index import ShardIndex


@pytest.mark.real
@pytest.mark.parametrize(
    ("root", "split", "count"), [("freihand", "train", 400), ("freihand/FreiHAND_pub_v2", "eval", 183)]
)
def test_real_images_come_with_labels_that_project_onto_them(
    root: str, split: str, count: int, real_data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "out.tar"
    handclr("import", "freihand", real_data / root, "--split", split, "-o", path)
    index = ShardIndex([str(path)])
    assert len(index) == count
    for sample in index:
        projected = project(sample.keypoints3d.astype(np.float64), sample.read(INTRINSICS).astype(np.float64))
        np.testing.assert_allclose(projected, sample.keypoints2d, atol=1e-3)
        assert (sample.keypoints2d > 0).all() and (sample.keypoints2d < 224).all()


def test_a_folder_that_is_none_is_one_line(tmp_path: Path) -> None:
    line = error_line(handclr("import", "freihand", tmp_path, code=1))
    assert "FreiHAND_pub_v2" in line
