"""The README and the pages: their commands and their Python are run, in order, in an empty folder,
on small data laid where the text says; what cannot be run has options that there are.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pages
import pytest
import torch
import warm
from conftest import drawn_pair, pack
from drawn_hand import write_video
from fake_scenes import FakeScene
from filelock import FileLock
from house import PACKAGE, ROOT
from labelled_helpers import labelled_sample
from pages import Block
from shard_helpers import cli_env

from handclr_cli.contract import fields
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.provenance import provenance
from handclr_cli.contract.sample import Sample
from handclr_cli.contract.shards import ShardOutput
from handclr_cli.learning.encoder import Encoder
from handclr_cli.learning.pose import PoseNet
from handclr_cli.learning.posemodel import MeanPose, save_payload
from handclr_cli.synth.layouts import write_assemblyhands, write_dexycb, write_freihand

# Messages of other programs.
OTHERS = """
No module named 'cv2'; libGL.so.1: cannot open shared object file; libEGL.so.1; man handclr-mine
"""
# What the text says is there already.
LAID = {
    "README.md": ("clip.mp4", "videos", "FreiHAND"),
    "datasets.md": ("FreiHAND", "DexYCB", "AssemblyHands"),
    "evaluation.md": ("eval.tar", "runs/hands/model.pt"),
    "finetuning.md": ("train.tar", "hands.tar", "runs/handclr/encoder.pt"),
    "footage.md": ("videos", "boxes.csv"),
    "format.md": ("hands.tar",),
    "getting-started.md": ("clip.mp4", "videos", "FreiHAND"),
    "mining.md": ("hands.tar", "theirs.tar", "new.mp4"),
    "predict.md": ("videos", "clip.mp4", "runs/hands/model.pt"),
    "pretraining.md": ("hands.tar", "pairs.npz", "new.mp4"),
    "python.md": ("hands.tar", "pose.npz", "pairs.npz", "model.pt"),
    "cluster.md": ("hands.tar", "pose.npz"),
}
# Whatever the text says, no more than this; a trainer's network too is the smallest.
AT_MOST = {"--count": 4, "--videos": 2, "--epochs": 1, "--batch": 4}
TRAINER = ("--arch", "resnet18", "--size", "32", "--batch", "4", "--epochs", "1", "--device", "cpu")
SMALL = {
    "pretrain": TRAINER,
    "finetune": TRAINER,
    "footage": ("--frames", "9", "--width", "256", "--height", "192"),
}
ONE_PROCESS = ("extract", "keypoints", "pretrain", "finetune", "predict", "evaluate", "import")
UNLESS_CODE = """\
import os, sys
if sys.argv[1:2] != ["-c"]:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
"""
CLIENT = """\
import json, os, socket, sys
WORDS = {words!r}
words = sys.argv[1:]
for option, most in WORDS["most"].items():
    if option in words:
        words[words.index(option) + 1] = str(min(int(words[words.index(option) + 1]), most))
for name, options in WORDS["small"].items():
    if name in words[:2]:
        words += options
if words[:1] and words[0] in WORDS["alone"]:
    words += ["--workers", "0"]
server = socket.socket(socket.AF_UNIX)
server.connect({door!r})
request = json.dumps({{"arguments": words, "env": dict(os.environ), "cwd": os.getcwd()}}).encode()
socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
server.sendall(request)
for end in range(3):
    os.close(end)
answers = [server.recv(8, socket.MSG_WAITALL) for _ in range(2)]
os._exit(int.from_bytes(answers[1], "big", signed=True) & 255)
"""


def all_blocks() -> list[Block]:
    return [block for page in pages.PAGES for block in pages.blocks(page)]


def test_blocks_are_of_known_languages_and_say_why_they_are_not_run() -> None:
    shown = {"text", "bibtex"}
    other = [one.name for one in all_blocks() if one.language not in pages.LANGUAGES | shown]
    assert other == []


def test_every_option_in_the_text_is_one() -> None:
    """In blocks that are run and those that are not, and in sentences."""
    wrong = []
    for page in pages.PAGES:
        texts = [block.text for block in pages.blocks(page) if block.language in pages.LANGUAGES]
        texts += pages.spans(page)
        for text in texts:
            for words in pages.commands(text):
                wrong += [f"{page.name}: {words}" for _ in pages.unknown_options(words)]
    assert wrong == []


def test_commands_are_found_in_pipes_and_assignments() -> None:
    text = "x=$(handclr mine 'a b.npz' --top-k 4 | tee log) || handclr pca - > p.npz # handclr z"
    assert list(pages.commands(text)) == [["mine", "a b.npz", "--top-k", "4"], ["pca", "-"]]
    assert pages.unknown_options(["mine", "--top-k", "4", "--topk"]) == ["--topk"]
    assert pages.unknown_options(["import", "freihand", "x", "--split", "eval"]) == []


def test_scripts_that_measured_something_are_there_and_have_the_options() -> None:
    lacking = []
    for page in pages.PAGES:
        text = " ".join(page.read_text(encoding="utf-8").replace("`", "\n").split(" "))
        for script, rest in re.findall(r"python (tests/[\w/]+\.py)([^\n(;]*)", text):
            there = (ROOT / script).exists()
            code = "".join(path.read_text() for path in (ROOT / script).parent.glob("*.py"))
            options = re.findall(r" (--[a-z-]+)", rest)
            lacking += [f"{page.name}: {script}"] * (not there)
            lacking += [f"{page.name}: {script} {each}" for each in options if each not in code]
    assert lacking == []


def test_messages_of_the_troubleshooting_page_are_those_of_the_code() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    # A message is in several literals, one below the other.
    code = re.sub(r'"\s*\n\s*f?"', "", code)
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    lacking = []
    for row in re.findall(r"^\| (`[^|]+`)[^|`]* \|", page, re.M):
        for message in re.findall(r"`([^`]+)`", row):
            parts = [part.strip() for part in message.split("...")]
            lacking += [part for part in parts if part and part not in code + OTHERS]
    assert lacking == []


@pytest.fixture(scope="session")
def door() -> Iterator[str]:
    """The socket of a process that has imported everything."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/door"
        server = subprocess.Popen([sys.executable, warm.__file__, path], env=cli_env())
        while not Path(path).exists():
            assert server.poll() is None
            time.sleep(0.05)
        yield path
        server.kill()
        server.wait()


@pytest.fixture(scope="session")
def supplies(tmp_path_factory: pytest.TempPathFactory, landmarker_file: Path) -> Path:
    """Everything that a page may begin with, made once for all processes of the tests."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = shared / "supplies"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            making = shared / "making-supplies"
            for make in MADE:
                make(making)
            making.rename(folder)
    return folder


def make_films(folder: Path) -> None:
    (folder / "videos").mkdir(parents=True)
    for number in range(4):
        pictures = [drawn_pair(number + step)[0] for step in (0, 2, 1, 3)]
        shifted = [np.roll(picture, 5 * number, 1) for picture in pictures]
        write_video(folder / "videos" / f"film-{number}.mp4", shifted, 1)
    for name in ("clip.mp4", "new.mp4"):
        shutil.copy(folder / "videos" / "film-1.mp4", folder / name)
    box = {"frame": 0, "x0": 90, "y0": 130, "x1": 260, "y1": 380, "hand": "right"}
    rows = [{"video": f"film-{number}", **box} for number in range(4)]
    lines = [",".join(map(str, row.values())) for row in rows]
    (folder / "boxes.csv").write_text("\n".join([",".join(rows[0]), *lines]) + "\n")


def make_sets(folder: Path) -> None:
    write_freihand(folder / "FreiHAND", FakeScene, 16, lambda _: None)
    write_dexycb(folder / "DexYCB", FakeScene, 24, lambda _: None)
    write_assemblyhands(folder / "AssemblyHands", FakeScene, 8, lambda _: None)


def make_crops(folder: Path) -> None:
    """Crops of the films, found as the pages find them, and what follows from them; labelled ones
    have what was found of their shape for the truth.
    """
    for words, output in (
        ("extract --with-keypoints --workers 0 videos", "hands.tar"),
        ("pca hands.tar", "pose.npz"),
        ("mine pose.npz", "pairs.npz"),
    ):
        done = warm.run([*words.split(), "-o", output], env=cli_env(), cwd=folder)
        assert done.returncode == 0, done.stderr
    found = list(ShardIndex(str(folder / "hands.tar")))
    for name in ("train.tar", "eval.tar"):
        with ShardOutput(str(folder / name), provenance("test", {})) as out:
            for number, sample in enumerate(found):
                out.write(labelled(sample, number))
    theirs = {
        f"film-{number // 8}/{number:04d}": {
            "jpg": sample.members["jpg"],
            "keypoints2d.npy": sample.members["keypoints2d.npy"],
        }
        for number, sample in enumerate(found)
    }
    (folder / "theirs.tar").write_bytes(pack(theirs))


def labelled(sample: Sample, number: int) -> Sample:
    """A hand half a metre before the camera of its crop."""
    camera = np.array([[300, 0, 112], [0, 300, 112], [0, 0, 1]])
    truth = sample.read(fields.WORLD_3D) + [0, 0, 0.5]
    info = {**sample.read(fields.INFO), "sample": f"unique-{number:04d}"}
    members = {
        **sample.members,
        fields.INFO.suffix: fields.encode_object(info),
        fields.KEYPOINTS_3D.suffix: fields.encode_array(fields.KEYPOINTS_3D, truth),
        fields.INTRINSICS.suffix: fields.encode_array(fields.INTRINSICS, camera),
    }
    return Sample(sample.key, members)


def make_models(folder: Path) -> None:
    joints = labelled_sample(0).keypoints3d
    network = PoseNet(Encoder("resnet18"), head="regress")
    payload = save_payload(network, 32, MeanPose(joints - joints[0], 0.09))
    (folder / "runs" / "hands").mkdir(parents=True)
    (folder / "runs" / "handclr").mkdir(parents=True)
    for name in ("model.pt", "runs/hands/model.pt"):
        torch.save(payload, folder / name)
    torch.save(network.encoder.state_dict(), folder / "runs" / "handclr" / "encoder.pt")


MADE: tuple[Callable[[Path], None], ...] = (make_films, make_sets, make_crops, make_models)


@pytest.fixture
def bin_folder(door: str, tmp_path: Path) -> Path:
    """A folder with a `handclr` that makes what it is told small, and with a `python`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    words = {"most": AT_MOST, "small": SMALL, "alone": ONE_PROCESS}
    client = CLIENT.format(words=words, door=door)
    for name, first in (("handclr", ""), ("python", UNLESS_CODE.format(python=sys.executable))):
        (folder / name).write_text(f"#!{sys.executable} -SE\n{first}{client}")
        (folder / name).chmod(0o755)
    return folder


def lay(names: tuple[str, ...], supplies: Path, work: Path) -> None:
    for name in names:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        if (supplies / name).is_dir():
            shutil.copytree(supplies / name, work / name)
        else:
            shutil.copy(supplies / name, work / name)


RUN = [page for page in pages.PAGES if any(block.is_run for block in pages.blocks(page))]


@pytest.mark.slow
@pytest.mark.landmarker
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run_in_order(
    page: Path, supplies: Path, bin_folder: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    lay(LAID.get(page.name, ()), supplies, work)
    env = cli_env({"PATH": f"{bin_folder}:{os.environ['PATH']}", "MPLBACKEND": "agg"})
    for block in filter(lambda block: block.is_run, pages.blocks(page)):
        command = ["python", "-c", block.text]
        if block.language == "bash":
            command = ["bash", "-euo", "pipefail", "-c", block.text]
        command[0] = shutil.which(command[0], path=env["PATH"]) or command[0]
        done = subprocess.run(
            command, cwd=work, env=env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{block.name}\n{block.text}\n{done.stderr}"
