"""Worker processes that load batches."""

from __future__ import annotations

import subprocess
import sys

import pytest

FORK = """
import cv2, numpy as np, torch
from handclr_cli.learning.loading import batches
cv2.setNumThreads(4)
cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (0, 0), 5)
class Blurred(torch.utils.data.Dataset):
    def __getitem__(self, row):
        return cv2.GaussianBlur(np.full((64, 64, 3), row, np.uint8), (0, 0), 5).max()
with batches(Blurred(), [[1, 2], [3]], np.array, 2, torch.device("cpu")) as loaded:
    print([batch.tolist() for batch in loaded])
"""


@pytest.mark.slow
def test_workers_start_beside_the_threads_of_opencv() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, timeout=60, check=True)
    assert done.stdout == b"[[1, 2], [3]]\n"
