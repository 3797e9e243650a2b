"""$ handclr finetune, in real subprocesses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from labelled_helpers import (
    TRAINING,
    error_line,
    handclr,
    labelled_sample,
    without_tables,
    write_labelled,
)
from shard_helpers import write_shard

from handclr_cli.contract import fields
from handclr_cli.contract.errors import UsageError
from handclr_cli.contract.sample import Sample
from handclr_cli.learning.distributed import Ranks
from handclr_cli.learning.encoder import build_encoder
from handclr_cli.learning.finetune_job import FinetuneSettings, run_finetune
from handclr_cli.learning.posemodel import load_model
from handclr_cli.learning.run import alone_in

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
        *(
            "finetune",
            "-",
            "--encoder",
            encoder,
            "--run",
            folder / "run",
            "--freeze",
            "--head",
            "regress",
            *TINY,
        ),
        *("--hold-out", 0.25, "--cache", "ram"),
        stdin=shard.read_bytes(),
    )
    return Path(done.stdout.decode().strip())


@pytest.mark.slow
def test_a_frozen_encoder_stays_as_it_was(model: Path, encoder: Path) -> None:
    before = torch.load(encoder, weights_only=True)
    payload = torch.load(model, weights_only=True)
    assert payload["arch"] == "resnet18" and payload["head"] == "regress"
    assert all(
        torch.equal(tensor, payload["state"][f"encoder.{name}"]) for name, tensor in before.items()
    )


@pytest.mark.slow
def test_the_best_and_the_last_are_kept_with_what_validation_said(model: Path) -> None:
    last, best = (load_model(model.parent / name) for name in ("model-last.pt", "model.pt"))
    records = [json.loads(line) for line in (model.parent / "log.jsonl").read_text().splitlines()]
    errors = [record["mpjpe_root_bone_mm"] for record in records if "mpjpe_root_bone_mm" in record]
    assert [record["step"] for record in records if "mpjpe_root_mm" in record] == [1, 2] and len(
        errors
    ) == 2
    same = all(
        torch.equal(a, b)
        for a, b in zip(last.network.parameters(), best.network.parameters(), strict=True)
    )
    assert same == (errors[1] < errors[0])
    config = json.loads((model.parent / "config.json").read_text())
    assert config["data"]["rows"] == 6 and config["arguments"]["hold_out"] == 0.25


@pytest.mark.slow
def test_a_file_of_options_and_validation_on_other_shards(tmp_path: Path) -> None:
    train, other = (
        write_labelled(tmp_path / "train.tar", 4),
        write_labelled(tmp_path / "val.tar", 2, first=10),
    )
    table = tmp_path / "finetune.toml"
    table.write_text(
        f'arch = "resnet18"\nhead = "regress"\nepochs = 1\nvalidation = ["{other}"]\nrun ='
        f' "{tmp_path}/r"\n'
    )
    arguments = ("finetune", train, "--config", table, *TINY[:-2])
    done = handclr(*arguments)
    assert done.stdout.decode() == f"{tmp_path}/r/model.pt\n"
    assert "validation: 2 crops; predicting the mean pose would score" in done.stderr.decode()


@pytest.mark.slow
def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    shard = write_labelled(tmp_path / "eval.tar", 3)
    assert "multiple of 32" in error_line(handclr("finetune", shard, "--size", 100, code=2))
    line = error_line(
        handclr("finetune", shard, "--encoder", shard, "--run", tmp_path / "run", code=1)
    )
    assert "eval.tar" in line


@pytest.mark.slow
def test_damaged_crops_cost_themselves_and_not_the_training(tmp_path: Path) -> None:
    """Some are seen to be damaged, one only when it is decoded, some have damaged labels."""
    samples = [labelled_sample(number) for number in range(8)]
    samples[1].members["jpg"] = b"junk"
    samples[2].members["jpg"] = samples[2].members["jpg"][:-9]
    samples[3].members["jpg"] = without_tables(bytes(samples[3].members["jpg"]))
    samples[4].members["keypoints3d.npy"] = b"junk"
    samples[5].members["json"] = b"{"
    shard = write_shard(tmp_path / "bad.tar", samples)
    run = tmp_path / "run"
    arguments = (*TRAINING, "--batch", 4, "--epochs", 1, "--workers", 1, "--hold-out", 0.3)
    done = handclr("finetune", shard, "--run", run, *arguments, code=3)
    said = done.stderr.decode()
    assert done.stdout.decode().strip() == str(run / "model.pt") and "5 crops skipped" in said
    for number, why in (
        (1, "jpg: not a JPEG or PNG image; skipped"),
        (2, "jpg: damaged, or cut short; skipped"),
        (3, "bad jpg: not an image; "),
        (4, "bad keypoints3d.npy"),
        (5, "bad json"),
    ):
        assert f"sample video{number // 4}-v0_{number:08d}_r: {why}" in said
    done = handclr("evaluate", shard, "--model", run / "model.pt", code=3)
    report = json.loads(done.stdout)
    assert (report["samples"], report["samples_skipped"]) == (3, 5)
    assert report["samples_without_labels"] == 0


@pytest.mark.slow
def test_crops_that_only_decoding_shows_to_be_damaged_are_counted_once(tmp_path: Path) -> None:
    """Whether they are trained on, in each epoch, or validated on."""
    samples, held = ([relabelled(n, 0.0) for n in range(first, first + 4)] for first in (0, 4))
    for sample in (samples[1], held[1]):
        sample.members["jpg"] = without_tables(bytes(sample.members["jpg"]))
    held[2].members["keypoints3d.npy"] = b"junk"
    shards = [str(write_shard(tmp_path / "train.tar", samples))]
    validation = [str(write_shard(tmp_path / "val.tar", held))]
    how = {"arch": "resnet18", "head": "regress", "size": 32, "batch": 4, "epochs": 2}
    where = {"run": str(tmp_path / "run"), "workers": 0, "device": "cpu"}
    settings = FinetuneSettings(shards=shards, **how, **where)
    assert run_finetune(settings).skipped == 1
    settings = replace(settings, validation=validation, run=str(tmp_path / "other"))
    assert run_finetune(settings).skipped == 3


@pytest.mark.slow
def test_another_encoder_under_the_same_name_is_another_run(encoder: Path, tmp_path: Path) -> None:
    shard = write_labelled(tmp_path / "train.tar", 4)
    copy = tmp_path / "encoder.pt"
    copy.write_bytes(encoder.read_bytes())
    handclr("finetune", shard, "--encoder", copy, "--run", tmp_path / "run", *TINY)
    torch.save(build_encoder("resnet18", seed=4).state_dict(), copy)
    line = error_line(
        handclr("finetune", shard, "--encoder", copy, "--run", tmp_path / "run", *TINY, code=2)
    )
    assert "model.encoder.pt was" in line


def relabelled(number: int, by: float) -> Sample:
    """A labelled sample with a longer hand, under the same key."""
    sample, field = labelled_sample(number), fields.KEYPOINTS_3D
    moved = sample.keypoints3d + by * (sample.keypoints3d - sample.keypoints3d[:1])
    sample.members[field.suffix] = fields.encode_array(field, moved)
    return sample


@pytest.mark.slow
def test_other_labels_under_the_same_keys_are_another_run(tmp_path: Path) -> None:
    """Taken for the same, the run would mix their mean pose with weights of the others."""
    train, held = tmp_path / "train.tar", tmp_path / "val.tar"
    write_shard(train, [relabelled(number, 0.0) for number in range(4)])
    write_shard(held, [relabelled(number, 0.0) for number in (4, 5)])
    settings = FinetuneSettings(
        shards=[str(train)],
        validation=[str(held)],
        run=str(tmp_path / "run"),
        arch="resnet18",
        head="regress",
        size=32,
        batch=4,
        epochs=1,
        workers=0,
        device="cpu",
    )
    done = run_finetune(settings)
    before = done.weights.read_bytes()
    write_shard(train, [relabelled(number, 0.1) for number in range(4)])
    with pytest.raises(UsageError, match=r"\(data\.labels are others now\)"):
        run_finetune(settings)
    write_shard(train, [relabelled(number, 0.0) for number in range(4)])
    write_shard(held, [relabelled(number, 0.1) for number in (4, 5)])
    with pytest.raises(UsageError, match=r"\(data\.validation_labels are others now\)"):
        run_finetune(settings)
    write_shard(held, [relabelled(number, 0.0) for number in (4, 5)])
    assert run_finetune(settings).best == done.best and done.weights.read_bytes() == before


@pytest.mark.slow
def test_a_run_is_lost_to_nothing_but_the_run_that_replaces_it(model: Path, tmp_path: Path) -> None:
    shard, run = write_labelled(tmp_path / "train.tar", 4), tmp_path / "run"
    shutil.copytree(model.parent, run)
    (run / "encoder.pt").write_bytes(b"the only copy")
    before = {path: path.read_bytes() for path in run.iterdir()}
    fresh = ("finetune", shard, "--run", run, "--fresh", "--arch", "resnet18", *TINY)
    line = error_line(handclr(*fresh, "--encoder", run / "encoder.pt", code=2))
    assert f"{run}/encoder.pt is an input and lies in this folder, which is written to" in line
    (tmp_path / "junk.pt").write_bytes(b"junk")
    assert "junk.pt" in error_line(handclr(*fresh, "--encoder", tmp_path / "junk.pt", code=1))
    with alone_in(run, Ranks()):
        line = error_line(handclr(*fresh, code=1))
    assert f"error: another training is running in {run}; wait for its end, or name" in line
    assert {path: path.read_bytes() for path in run.iterdir()} == before
    handclr(*fresh)
    assert (run / "model.pt").read_bytes() != before[run / "model.pt"]
    assert sorted(path.name for path in run.iterdir()) == [
        *("config.json", "last.pt", "log.jsonl", "loss.png", "model.pt"),
    ]
