"""What fine-tuning trains on, that several processes do what one does, and which weights
are kept.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from labelled_helpers import labelled_sample, write_labelled
from shard_helpers import write_shard
from torch import Tensor, nn

from handclr_cli.choices import OptimizerName
from handclr_cli.contract import fields
from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.sample import Sample
from handclr_cli.evaluation.metrics import evaluate_pose
from handclr_cli.learning import finetune_job, loop
from handclr_cli.learning.augmentation import Appearance, Geometry
from handclr_cli.learning.distributed import Ranks, distribute, joined_ranks
from handclr_cli.learning.encoder import Encoder, build_encoder
from handclr_cli.learning.finetune_job import FinetuneSettings, run_finetune
from handclr_cli.learning.finetuning import (
    Labelled,
    PoseDataset,
    PoseObjective,
    collate_labelled,
    pose_augmentation,
)
from handclr_cli.learning.guide import Guide
from handclr_cli.learning.hardware import ViewsMade
from handclr_cli.learning.heads import HEADS
from handclr_cli.learning.loop import train
from handclr_cli.learning.optim import OPTIMIZERS
from handclr_cli.learning.pose import PoseNet
from handclr_cli.learning.posemodel import MeanPose, load_model, mean_pose, save_payload
from handclr_cli.learning.run import Run
from handclr_cli.learning.schedule import Schedule
from handclr_cli.learning.store import CropStore
from handclr_cli.learning.training_labels import choose_fraction, hold_out, read_training_labels
from handclr_cli.learning.validation import (
    ROOT,
    ROOT_BONE,
    BestKept,
    Validation,
    build_validation,
    refuse_shared,
)

CPU = torch.device("cpu")


def index_of(
    path: Path, count: int, versions: int = 1, missing: tuple[int, ...] = ()
) -> ShardIndex:
    """Labelled samples, of which the first lacks the labels of some joints."""
    samples = [
        labelled_sample(number, version) for number in range(count) for version in range(versions)
    ]
    valid = np.ones(21, np.uint8)
    valid[list(missing)] = 0
    samples[0].members[fields.VALID.suffix] = fields.encode_array(fields.VALID, valid)
    bare = labelled_sample(count)
    del bare.members[fields.KEYPOINTS_3D.suffix]
    return ShardIndex([str(write_shard(path / "hands.tar", [bare, *samples]))])


def test_labels_are_those_of_the_samples_that_have_them(tmp_path: Path) -> None:
    index = index_of(tmp_path, 3, missing=(4, 20))
    labels = read_training_labels(index)
    assert labels.rows.tolist() == [1, 2, 3] and labels.names.tolist() == [
        f"unique-000{n}" for n in range(3)
    ]
    assert np.argwhere(~labels.valid).tolist() == [[0, 4], [0, 20]]
    np.testing.assert_allclose(labels.keypoints2d[1] * 64, index[2].keypoints2d, rtol=1e-6)
    pose = index[3].keypoints3d.astype(np.float64)
    np.testing.assert_allclose(labels.keypoints3d[2], pose - pose[0], atol=1e-7)
    bare = labelled_sample(0)
    for field in (fields.KEYPOINTS_2D, fields.INTRINSICS):
        del bare.members[field.suffix]
    why = "no sample has labels, keypoints2d.npy and keypoints3d.npy; make labelled shards by "
    why += "handclr import or handclr synth labelled; handclr predict needs none"
    with pytest.raises(HandclrError, match=f"^{why}$"):
        read_training_labels(ShardIndex([str(write_shard(tmp_path / "bare.tar", [bare]))]))


def test_the_mean_pose_is_that_of_the_labels_there_are(tmp_path: Path) -> None:
    index = index_of(tmp_path, 3, missing=(4,))
    poses = np.stack([index[row].keypoints3d for row in (1, 2, 3)]).astype(np.float64)
    poses -= poses[:, :1]
    mean = mean_pose(read_training_labels(index))
    np.testing.assert_allclose(mean.pose[5], poses[:, 5].mean(axis=0), atol=1e-7)
    np.testing.assert_allclose(mean.pose[4], poses[1:, 4].mean(axis=0), atol=1e-7)
    assert mean.bone == pytest.approx(np.linalg.norm(poses[:, 9], axis=1).mean())


def test_a_fraction_is_of_unique_samples_and_seeded(tmp_path: Path) -> None:
    labels = read_training_labels(
        ShardIndex([str(write_labelled(tmp_path / "train.tar", 12, versions=3))])
    )
    chosen = choose_fraction(labels, 0.25, seed=0)
    assert len(chosen) == 9 and len(set(chosen.names)) == 3
    assert sorted(set(chosen.names)) != ["unique-0000", "unique-0001", "unique-0002"]
    assert np.array_equal(chosen.rows, choose_fraction(labels, 0.25, seed=0).rows)
    assert not np.array_equal(chosen.rows, choose_fraction(labels, 0.25, seed=1).rows)
    assert np.array_equal(choose_fraction(labels, 1.0, seed=0).rows, labels.rows)


def test_what_is_held_out_is_on_no_other_side(tmp_path: Path) -> None:
    labels = read_training_labels(
        ShardIndex([str(write_labelled(tmp_path / "train.tar", 12, versions=3))])
    )
    kept, held = hold_out(labels, 0.25, seed=0)
    assert (len(kept), len(held)) == (27, 9) and not set(kept.names) & set(held.names)
    assert sorted([*kept.rows, *held.rows]) == labels.rows.tolist()
    assert not np.array_equal(held.rows, hold_out(labels, 0.25, seed=1)[1].rows)
    assert set(held.names) != set(choose_fraction(labels, 0.25, seed=0).names)
    everything, nothing = hold_out(labels, 0.0, seed=0)
    assert np.array_equal(everything.rows, labels.rows) and len(nothing) == 0
    with pytest.raises(UsageError, match="leaves nothing"):
        hold_out(labels.take(np.arange(3)), 0.5, seed=0)
    refuse_shared(kept, held)
    with pytest.raises(UsageError, match=r"unique-\d{4} is also trained on \(3 such\)"):
        refuse_shared(labels, held)


@pytest.mark.parametrize("made", [ViewsMade.ON_DEVICE, ViewsMade.FROM_CACHE])
def test_the_device_makes_the_same_batch(made: ViewsMade, tmp_path: Path) -> None:
    index = index_of(tmp_path, 6, missing=(4,))
    labels, size = read_training_labels(index).take(np.array([0, 2, 5])), 32
    crops, config = CropStore(index, 36), pose_augmentation(size, 90.0)
    here, there = (
        collate_labelled([PoseDataset(crops, labels, config, 7, how)[3, row] for row in (2, 0)])
        for how in (ViewsMade.BY_WORKERS, made)
    )
    assert (
        torch.equal(here.rows, torch.tensor([2, 0]))
        and not here.valid[1, 4]
        and here.valid[0].all()
    )
    for one, other in zip(here[3:-1], there[3:-1], strict=True):
        assert torch.equal(one, other)
    assert all(map(torch.equal, here.guide, there.guide))
    cached = made is ViewsMade.FROM_CACHE
    kept = crops.on_device(CPU, 0, labels.rows.tolist()) if cached else None
    assert (there.images is None) == cached
    net = nn.Identity()
    expected = PoseObjective(net, HEADS["regress"](4), size, CPU)._images(here)
    found = PoseObjective(net, HEADS["regress"](4), size, CPU, made=made, crops=kept)._images(there)
    assert (found - expected).abs().mean() < 0.02 and (found - expected).abs().max() < 0.3


def with_a_dot(sample: Sample, joint: int) -> Sample:
    """The sample, its picture black but for a dot of three pixels at a joint."""
    points, image = sample.keypoints2d.copy(), np.zeros((64, 64, 3), np.uint8)
    column, row = np.floor(points[joint]).astype(int)
    image[row - 1 : row + 2, column - 1 : column + 2] = 255
    points[joint] = column + 0.5, row + 0.5
    sample.members[fields.IMAGE.suffix] = fields.encode_image(image, 100)
    sample.members[fields.KEYPOINTS_2D.suffix] = fields.encode_array(fields.KEYPOINTS_2D, points)
    return sample


def centre_of_light(image: np.ndarray) -> np.ndarray:
    """The mean place (2,) of what is bright, x and y, pixel centres at .5."""
    weights = np.clip(image.astype(float).sum(axis=2) - 250, 0, None)
    rows, columns = np.indices(weights.shape) + 0.5
    return np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()


def test_the_labels_go_where_the_picture_goes(tmp_path: Path) -> None:
    """A dot at a joint is at the joint in the view, whichever way it was turned; 3D turns
    with it.
    """
    sample = with_a_dot(labelled_sample(0), 9)
    index = ShardIndex([str(write_shard(tmp_path / "dot.tar", [sample]))])
    dataset = PoseDataset(
        CropStore(index, 64), read_training_labels(index), pose_augmentation(64, 180.0), 0
    )
    for epoch in range(20):
        shown = dataset[epoch, 0]
        assert shown.image is not None
        assert np.linalg.norm(centre_of_light(shown.image) - shown.keypoints2d[9]) < 0.7
        angle = np.radians(shown.view.angle_deg)
        x, y, z = sample.keypoints3d[9] - sample.keypoints3d[0]
        turned = [np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y, z]
        np.testing.assert_allclose(shown.keypoints3d[9], turned, atol=1e-6)


# Two processes in one go, as in test_distributed.
N, SIZE = 6, 32


def batch_of(share: slice) -> Labelled:
    """Hands of which the first process has more labels, and more in view, than the second."""
    random = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (N, SIZE, SIZE, 3), generator=random).to(torch.uint8)
    uv = SIZE * torch.rand(N, 21, 2, generator=random)
    uv[4:, 10:] += SIZE
    valid = torch.rand(N, 21, generator=random) < torch.linspace(1, 0.4, N)[:, None]
    xyz = 0.1 * torch.randn(N, 21, 3, generator=random)
    look = Appearance(*torch.zeros(5, N)[:, share])
    geometry = Geometry(torch.zeros(N)[share], torch.ones(N)[share], torch.zeros(N, 2)[share])
    guide = Guide(uv + 2, xyz, torch.arange(N) % 3 > 0)
    labels = uv[share], xyz[share], valid[share], torch.arange(N)[share] % 2 > 0
    told = Guide(*(field[share] for field in guide))
    return Labelled(images[share], geometry, look, torch.arange(N)[share], *labels, told)


class SmallNet(nn.Module):
    """One convolution and a head."""

    def __init__(self, head: str) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 8, stride=32), nn.BatchNorm2d(8))
        self.head = HEADS[head](8)

    def forward(self, images: Tensor, *guide: Guide) -> Any:
        return self.head(self.encoder(images), *guide)


def objectives(ranks: Ranks) -> list[Tensor]:
    found = []
    for head in HEADS:
        torch.manual_seed(1)
        model = SmallNet(head)
        whole = distribute(model, ranks, CPU)
        losses = PoseObjective(whole, model.head, SIZE, CPU, ranks=ranks)(batch_of(ranks.share(N)))
        values = torch.stack([value.detach() for value in losses.values()])
        grads = [
            parameter.grad.flatten()
            for parameter in model.parameters()
            if parameter.grad is not None
        ]
        found += [ranks.mean(values), torch.cat(grads)]
    return found


def two_processes(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    with joined_ranks(Ranks(rank, 2, rank, 2, "127.0.0.1", port), CPU) as ranks:
        torch.save(objectives(ranks), f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_two_processes_have_the_loss_and_the_gradients_of_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["handclr_cli.learning.finetuning", "torch._dynamo"])
    processes = [
        context.Process(target=two_processes, args=(rank, port, str(tmp_path))) for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
        assert process.exitcode == 0
    expected = objectives(Ranks())
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, number in zip(HEADS, range(0, len(expected), 2), strict=True):
            torch.testing.assert_close(
                found[number], expected[number], atol=1e-5, rtol=1e-5, msg=f"{name}: loss"
            )
            scale = expected[number + 1].abs().max()
            torch.testing.assert_close(
                found[number + 1] / scale,
                expected[number + 1] / scale,
                atol=1e-5,
                rtol=0,
                msg=f"{name}: gradients",
            )


def test_validation_is_what_evaluate_defines(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pred, truth = random.normal(size=(2, 5, 21, 3))
    valid = random.uniform(size=(5, 21)) < 0.6
    valid[:, [0, 9]], valid[:, 3] = True, False
    means = []
    for joint in range(21):
        off = [
            1000 * np.linalg.norm((pred[n, joint] - pred[n, 0]) - (truth[n, joint] - truth[n, 0]))
            for n in range(5)
            if valid[n, joint]
        ]
        means += [np.mean(off)] if off else []
    mean = MeanPose(np.zeros((21, 3), np.float32), 0.1)
    unguided = torch.zeros(5, 32, 32, 3), Guide.nothing(5, CPU)
    found = Validation(*unguided, truth, valid, mean).errors(pred)
    assert len(means) == 20 and found[ROOT] == pytest.approx(np.mean(means))
    evaluated = evaluate_pose(pred, truth, valid, placed=False)
    for name, alignment in ((ROOT, "root"), (ROOT_BONE, "root+bone")):
        assert found[name] == evaluated[alignment]["mpjpe_mm"]


def test_a_prediction_that_is_not_finite_has_no_error() -> None:
    pose = np.random.default_rng(0).normal(size=(2, 21, 3)).astype(np.float32)
    mean = MeanPose(pose[0], 0.1)
    unguided = torch.zeros(2, 32, 32, 3), Guide.nothing(2, CPU)
    measured = Validation(*unguided, pose, np.ones((2, 21), bool), mean)
    diverged = pose.copy()
    diverged[1, 4, 2] = np.nan
    assert np.isnan(list(measured.errors(diverged).values())).all()
    assert measured.errors(pose) == {ROOT: 0.0, ROOT_BONE: 0.0}


@pytest.mark.slow
def test_validation_sees_the_crops_as_a_model_in_use_does(tmp_path: Path) -> None:
    index = index_of(tmp_path, 3)
    labels = read_training_labels(index)
    network = PoseNet(Encoder("resnet18"), head="regress").train()
    mean = mean_pose(labels)
    measured = build_validation([(index, labels), (index, labels.take(np.array([1])))], 32, mean, 0)
    assert len(measured.images) == 4
    found = measured(network)
    assert network.training
    torch.save(save_payload(network, 32, mean), tmp_path / "model.pt")
    model = load_model(tmp_path / "model.pt")
    which = [1, 2, 3, 2]
    pred = model([index[row].image for row in which]).xyz.astype(np.float64)
    truth = np.stack([index[row].keypoints3d for row in which]).astype(np.float64)
    pred, truth = pred - pred[:, :1], truth - truth[:, :1]
    scale = np.linalg.norm(truth[:, 9], axis=1) / np.linalg.norm(pred[:, 9], axis=1)
    for name, other in ((ROOT, pred), (ROOT_BONE, pred * scale[:, None, None])):
        assert float(found[name]) == pytest.approx(
            1000 * np.linalg.norm(other - truth, axis=2).mean(), rel=1e-4
        )
    chance = float(measured.chance()[ROOT])
    assert chance == pytest.approx(
        1000 * np.linalg.norm(mean.pose - truth, axis=2).mean(), rel=1e-4
    )


@pytest.mark.slow
def test_a_model_comes_back_and_needs_all_its_tensors(tmp_path: Path) -> None:
    mean = MeanPose(np.zeros((21, 3), np.float32), 0.1)
    network = PoseNet(Encoder("resnet18"), seed=5)
    payload = save_payload(network, 32, mean)
    torch.save(payload, tmp_path / "model.pt")
    state = load_model(tmp_path / "model.pt").network.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    del payload["state"]["head.heat.0.weight"]
    torch.save(payload, tmp_path / "model.pt")
    with pytest.raises(
        HandclrError, match="not those of a resnet18 pose model with the head detnet"
    ):
        load_model(tmp_path / "model.pt")


# A run of one weight that walks, with an error that is least in the middle of the way.
EPOCHS, EPOCH_STEPS = 8, 2
WALK = Schedule(2 * EPOCH_STEPS, 2, EPOCHS, lr=1.0, warmup_epochs=0, seed=0, save_every=3)


def wavy(weight: Tensor) -> Tensor:
    return (weight - 6).abs() + (4 * weight).sin() / 2 + 2


class Killed(Exception):
    """As good as SIGKILL: nothing is saved."""


def walk(
    folder: Path,
    die: Callable[[str, int], bool] = lambda where, epoch: False,
    schedule: Schedule = WALK,
) -> Path | None:
    """Train, but die where told; gives model.pt of a run that got to its end."""
    weight = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(weight.weight)
    run, epoch = Run(folder, {"arguments": {}}), [0]

    def measure() -> dict[str, Tensor]:
        epoch[0] += 1
        return {ROOT_BONE: wavy(weight.weight.detach().mean())}

    class Dying(BestKept):
        def __call__(self, number: int) -> dict[str, Tensor]:
            found = super().__call__(number)
            if die("validated", number):
                raise Killed
            return found

        def write(self) -> None:
            if die("saving", epoch[0]):
                raise Killed
            super().write()
            if die("written", epoch[0]):
                raise Killed

    def differentiate(batch: Any) -> dict[str, Tensor]:
        loss = -weight.weight.mean()
        loss.backward()
        return {"loss": loss}

    best = Dying(run, measure, lambda: {"weight": weight.weight.detach().clone()})
    optimizer = torch.optim.SGD(weight.parameters(), lr=1.0)
    try:
        train(
            run=run,
            label="walk",
            model=weight,
            optimizer=optimizer,
            dataset=Nothing(),
            collate=list,
            differentiate=differentiate,
            schedule=WALK,
            device=CPU,
            examine=best,
            before_save=best.write,
        )
    except Killed:
        return None
    return best.finish()[0]


class Nothing(torch.utils.data.Dataset[float]):
    def __getitem__(self, at: Any) -> float:
        return 0.0


@pytest.mark.parametrize("interval", [0.0, 1e9], ids=["saves each epoch", "saves now and then"])
@pytest.mark.slow
def test_a_kill_at_any_time_keeps_the_same_best(
    interval: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "EPOCH_SAVE_INTERVAL_S", interval)
    monkeypatch.setattr(loop, "SAVE_SHARE", 1e9)
    path = walk(tmp_path / "undisturbed")
    assert path is not None
    expected = torch.load(path, weights_only=True)["weight"]
    records = [
        record
        for record in Run(tmp_path / "undisturbed", {"arguments": {}}).records()
        if ROOT_BONE in record
    ]
    errors = [record[ROOT_BONE] for record in records]
    assert len(errors) == EPOCHS and 0 < int(np.argmin(errors)) < EPOCHS - 1
    assert float(wavy(expected.mean())) == pytest.approx(min(errors), abs=1e-5)
    for where in ("validated", "saving", "written"):
        for at in range(1, EPOCHS + 1):
            folder, dead = tmp_path / f"{where}-{at}", []

            def die(
                place: str, number: int, where: str = where, at: int = at, dead: list[int] = dead
            ) -> bool:
                if (place, number) != (where, at) or dead:
                    return False
                dead.append(1)
                return True

            path = walk(folder, die) or walk(folder)
            assert path is not None and torch.equal(
                torch.load(path, weights_only=True)["weight"], expected
            )
            again = [
                one[ROOT_BONE]
                for one in Run(folder, {"arguments": {}}).records()
                if ROOT_BONE in one
            ]
            assert again == errors


def test_a_training_that_diverges_is_logged_up_to_there(tmp_path: Path) -> None:
    weight, losses = nn.Linear(1, 1, bias=False), iter([3.0, 2.0, math.nan, math.inf, 1.0])
    with pytest.raises(HandclrError, match="lr: the loss is not finite at step 3; lower the rate"):
        train(
            run=Run(tmp_path, {"arguments": {}}),
            label="diverging",
            model=weight,
            optimizer=torch.optim.SGD(weight.parameters(), lr=1.0),
            dataset=Nothing(),
            collate=list,
            differentiate=lambda batch: {"loss": torch.tensor(next(losses))},
            schedule=replace(WALK, samples=10, epochs=1),
            device=CPU,
        )
    records = Run(tmp_path, {"arguments": {}}).records()
    assert [(record["step"], record["loss"]) for record in records] == [(1, 3.0), (2, 2.0)]


def test_a_best_that_is_gone_is_told(tmp_path: Path) -> None:
    path = walk(tmp_path)
    assert path is not None
    path.unlink()
    with pytest.raises(HandclrError, match=r"model\.pt is gone"):
        walk(tmp_path)


def asked_of(folder: Path, **asked: Any) -> FinetuneSettings:
    shards = [str(write_labelled(folder / "train.tar", 8))]
    small = {"arch": "resnet18", "head": "regress", "size": 32, "workers": 0, "device": "cpu"}
    return FinetuneSettings(**{"shards": shards, "run": str(folder / "run"), **small, **asked})


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"fraction": 0.05}, "left of 8 by fraction=0.05: too few to train on; leave more, or add"),
        ({"fraction": 0.2, "hold_out": 0.3}, "left of 8 by fraction=0.2 and hold_out=0.3: too"),
        ({"shards": ["one.tar"]}, "in the input: too few to train on; add shards, for at least 2"),
    ],
)
def test_what_leaves_too_few_is_told(
    asked: dict[str, Any], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_labelled(tmp_path / "one.tar", 1)
    with pytest.raises(HandclrError, match=f"^1 labelled crop {told}"):
        run_finetune(asked_of(tmp_path, **asked))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_moves_the_weights(optimizer: OptimizerName, tmp_path: Path) -> None:
    """Each by a rate of its own: a step of LARS is a thousandth of what it is told."""
    made = run_finetune(asked_of(tmp_path, optimizer=optimizer, batch=8, epochs=12)).weights
    trained = torch.load(made, weights_only=True)["state"]
    for name, before in build_encoder("resnet18").state_dict().items():
        if before.ndim == 4:
            moved = trained[f"encoder.{name}"] - before
            assert moved.norm() > 1e-3 * before.norm(), name


@pytest.mark.parametrize(
    ("asked", "lr"),
    [({}, 1e-3), ({"optimizer": "lars"}, 0.15), ({"optimizer": "lars", "lr": 0.5}, 0.5)],
)
def test_what_was_asked_for_and_what_came_of_it_are_recorded_apart(
    asked: dict[str, Any], lr: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = []

    def untrained(settings: FinetuneSettings, *rest: Any) -> tuple[Path, None]:
        rates.append(settings.lr)
        return tmp_path / "model.pt", None

    monkeypatch.setattr(finetune_job, "_train", untrained)
    settings = asked_of(tmp_path, fraction=0.5, arch=None, epochs=2, **asked)
    run_finetune(settings)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert rates == [pytest.approx(lr)] and config["recipe"] == {
        "arch": "resnet50",
        "batch": 4,
        "lr": rates[0],
        "warmup_epochs": 0.2,
    }
    assert config["arguments"]["batch"] == 128 and config["arguments"].get("lr") == asked.get("lr")
    assert not config["arguments"].keys() & {"arch", "warmup_epochs"}
    older = {**config, "arguments": config["arguments"] | config.pop("recipe")}
    older["recipe"] = None
    (tmp_path / "run" / "config.json").write_text(json.dumps(older))
    (tmp_path / "run" / "last.pt").write_bytes(b"a state")
    run_finetune(settings)
    with pytest.raises(UsageError, match=r"arguments.lr was \S+, now 0.25"):
        run_finetune(replace(settings, lr=0.25))
