"""$ handclr finetune, in real subprocesses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_helpers import error_line, handclr, labelled_sample, write_labelled

from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.provenance import provenance
from handclr_cli.contract.shards import ShardOutput
from handclr_cli.learning.encoder import build_encoder
from handclr_cli.learning.finetuning import choose_fraction, labelled_rows

TINY = ("--size", 32, "--batch", 4, "--workers", 0, "--device", "cpu", "--epochs", 2)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "encoder.pt"
    torch.save(build_encoder("resnet18", seed=3).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def model(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finetune")
    shard = write_labelled(folder / "train.tar", 8)
    done = handclr(
        *("finetune", "-", "--encoder", encoder, "--run", folder / "run", "--freeze", *TINY), stdin=shard.read_bytes()
    )
    return Path(done.stdout.decode().strip())


def test_a_fraction_is_of_unique_samples_and_seeded(tmp_path: Path) -> None:
    index = ShardIndex([str(write_labelled(tmp_path / "train.tar", 12, versions=3))])
    rows = labelled_rows(index)
    chosen = choose_fraction(index, rows, 0.25, seed=0)
    names = [index[row].info["sample"] for row in chosen.tolist()]
    assert len(names) == 9 and len(set(names)) == 3
    assert sorted(set(names)) != ["unique-0000", "unique-0001", "unique-0002"]
    assert np.array_equal(chosen, choose_fraction(index, rows, 0.25, seed=0))
    assert not np.array_equal(chosen, choose_fraction(index, rows, 0.25, seed=1))
    assert np.array_equal(choose_fraction(index, rows, 1.0, seed=0), rows)


@pytest.mark.slow
def test_a_frozen_encoder_stays_as_it_was(model: Path, encoder: Path) -> None:
    before = torch.load(encoder, weights_only=True)
    payload = torch.load(model, weights_only=True)
    assert payload["arch"] == "resnet18"
    assert all(torch.equal(tensor, payload["state"][f"encoder.{name}"]) for name, tensor in before.items())


@pytest.mark.slow
def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    shard = write_labelled(tmp_path / "eval.tar", 3)
    assert "multiple of 32" in error_line(handclr("finetune", shard, "--size", 100, code=2))
    line = error_line(handclr("finetune", shard, "--encoder", shard, "--run", tmp_path / "run", code=1))
    assert "eval.tar" in line


@pytest.mark.slow
def test_a_damaged_crop_ends_the_trainer_in_one_line(tmp_path: Path) -> None:
    shard = tmp_path / "bad.tar"
    with ShardOutput(str(shard), provenance("test", {})) as out:
        for number in range(6):
            sample = labelled_sample(number)
            if number == 1:
                sample.members["jpg"] = b"junk"
            out.write(sample)
    arguments = ("--arch", "resnet18", "--size", 32, "--batch", 2, "--epochs", 1, "--workers", 1, "--device", "cpu")
    line = error_line(handclr("finetune", shard, "--run", tmp_path / "run", *arguments, code=1))
    assert "bad.tar: sample video0-v0_00000001_r: bad jpg: not an image" in line and "Traceback" not in line


@pytest.mark.slow
def test_another_encoder_under_the_same_name_is_another_run(encoder: Path, tmp_path: Path) -> None:
    shard = write_labelled(tmp_path / "train.tar", 4)
    copy = tmp_path / "encoder.pt"
    copy.write_bytes(encoder.read_bytes())
    handclr("finetune", shard, "--encoder", copy, "--run", tmp_path / "run", *TINY)
    torch.save(build_encoder("resnet18", seed=4).state_dict(), copy)
    line = error_line(handclr("finetune", shard, "--encoder", copy, "--run", tmp_path / "run", *TINY, code=2))
    assert "model.encoder.pt was" in line
