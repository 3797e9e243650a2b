"""What is published: wheel, source and image hold what they should, and the wheel works without
the tree that it was built from.
"""

from __future__ import annotations

import email
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from house import PACKAGE, ROOT
from markdown_it import MarkdownIt

from handclr_cli import __version__

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
URLS = PROJECT["project"]["urls"]
HATCH = PROJECT["tool"]["hatch"]
RAW = URLS["Source"].replace("github.com", "raw.githubusercontent.com") + f"/v{__version__}/"
PAGES = f"{URLS['Source']}/blob/v{__version__}/"
STEM = f"handclr-{__version__}"
LARGEST_BYTES = 30_000_000
COMPLETIONS = {
    "handclr.bash": "share/bash-completion/completions/handclr",
    "_handclr": "share/zsh/site-functions/_handclr",
    "handclr.fish": "share/fish/vendor_completions.d/handclr.fish",
}
# What a worked-in folder has beside the project; none of it is to be published.
STRAY = ("handclr_cli/__pycache__/old.pyc", "crops.tar", "runs/a/model.pt", "notes.txt", "dist/x")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source and the wheel built of it, and in `direct` the wheel of the tree."""
    folder = tmp_path_factory.mktemp("package")
    tree = folder / "tree"
    left_out = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", "demo", "runs")
    shutil.copytree(ROOT, tree, ignore=left_out)
    for name in STRAY:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("stray")
    build = [sys.executable, "-m", "build", "--no-isolation", tree, "--outdir"]
    for words in ([*build, folder], [*build, folder / "direct", "--wheel"]):
        done = subprocess.run(words, capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(tree)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return built / f"{STEM}-py3-none-any.whl"


def contents(wheel: Path) -> dict[str, int]:
    """The names of a wheel's files, and the checksum of each."""
    with zipfile.ZipFile(wheel) as archive:
        return {info.filename: info.CRC for info in archive.infolist()}


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(f"{STEM}.dist-info/METADATA"))


@pytest.mark.slow
def test_the_index_would_take_both(built: Path, wheel: Path) -> None:
    source = built / f"{STEM}.tar.gz"
    command = [sys.executable, "-m", "twine", "--no-color", "check", "--strict", source, wheel]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("PASSED") == 2, done.stdout + done.stderr
    assert max(source.stat().st_size, wheel.stat().st_size) < LARGEST_BYTES


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    files = [path for path in PACKAGE.rglob("*") if path.is_file()]
    expected = {
        path.relative_to(ROOT).as_posix() for path in files if path.parent.name != "__pycache__"
    }
    assert {"handclr_cli/weights/hand.pt", "handclr_cli/py.typed"} <= expected
    about = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    expected |= {f"{STEM}.dist-info/{name}" for name in about}
    expected |= set(_beside())
    assert {f"handclr_cli/completions/{name}" for name in COMPLETIONS} <= expected
    assert {f"{STEM}.data/data/{place}" for place in COMPLETIONS.values()} <= expected
    assert f"{STEM}.data/data/share/man/man1/handclr.1" in expected
    assert contents(wheel).keys() == expected


def _beside() -> Iterator[str]:
    """Where the files that lie beside the package are in the wheel."""
    for table, prefix in (("force-include", ""), ("shared-data", f"{STEM}.data/data/")):
        for source, place in HATCH["build"]["targets"]["wheel"][table].items():
            if (ROOT / source).is_dir():
                yield from (f"{prefix}{place}/{path.name}" for path in (ROOT / source).iterdir())
            else:
                yield prefix + place


@pytest.mark.slow
def test_the_source_gives_the_wheel_of_the_tree(built: Path, wheel: Path) -> None:
    assert contents(wheel) == contents(built / "direct" / wheel.name)
    with tarfile.open(built / f"{STEM}.tar.gz") as archive:
        names = {name.removeprefix(f"{STEM}/") for name in archive.getnames()}
    assert {"tests/pipeline.json", "README.md", "LICENSE", "CHANGELOG.md", "Dockerfile"} <= names
    assert names.isdisjoint(STRAY)
    assert not [name for name in names if name.startswith(".ci/")]


@pytest.mark.slow
def test_the_long_description_stands_alone(wheel: Path) -> None:
    about = metadata(wheel)
    assert about["License-Expression"] == "Apache-2.0"
    assert about["Description-Content-Type"] == "text/markdown"
    links = Links(str(about.get_payload()))
    assert [link for link in links.found if not re.match(r"https?://|#", link)] == []
    assert not links.pictures or all(link.startswith(RAW) for link in links.pictures)
    own = [link for link in links.found if link.startswith((RAW, PAGES))]
    paths = [link.removeprefix(RAW).removeprefix(PAGES).partition("#")[0] for link in own]
    assert own and [path for path in paths if not (ROOT / path).exists()] == []


class Links(HTMLParser):
    """The links and pictures of a text in Markdown."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.pictures: list[str] = []
        self.feed(MarkdownIt("commonmark").render(text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = [value or "" for name, value in attrs if name in ("href", "src", "srcset")]
        self.found += values
        self.pictures += values if tag in ("img", "source") else []


@pytest.mark.parametrize(
    ("written", "published"),
    [
        ("![A b](docs/x.png)", f"![A b]({RAW}docs/x.png)"),
        ('![](./docs/x.png "t")', f'![]({RAW}docs/x.png "t")'),
        (
            '<img width="9" src="docs/x.png" alt="">',
            f'<img width="9" src="{RAW}docs/x.png" alt="">',
        ),
        ("[a](docs/x.md#a-part)", f"[a]({PAGES}docs/x.md#a-part)"),
        ("[a](LICENSE), [b](docs/)", f"[a]({PAGES}LICENSE), [b]({PAGES}docs/)"),
        ("[![a](docs/x.png)](docs/x.md)", f"[![a]({RAW}docs/x.png)]({PAGES}docs/x.md)"),
        ('<a href="docs/x.md">', f'<a href="{PAGES}docs/x.md">'),
        ("[a]: docs/x.md", f"[a]: {PAGES}docs/x.md"),
        ("[a](https://x.org/y.md) [b](#part)", "[a](https://x.org/y.md) [b](#part)"),
        ("![a](https://x.org/y.png)", "![a](https://x.org/y.png)"),
        ("call[name](path)", "call[name](path)"),
    ],
)
def test_links_of_the_readme_lead_to_this_version(written: str, published: str) -> None:
    text = written
    for change in HATCH["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        replacement = change["replacement"].replace("$HFPR_VERSION", __version__)
        text = re.sub(change["pattern"], replacement, text)
    assert text == published


@pytest.mark.slow
def test_the_wheel_works_where_there_is_no_tree(wheel: Path, tmp_path: Path) -> None:
    run = Installed(wheel, tmp_path / "venv")
    assert run("--version") == f"handclr {__version__}\n"
    assert "--overlay" in run("predict", "--help")
    shard = tmp_path / "hands.tar"
    run("synth", "labelled", "--count", "2", "--size", "64", "--workers", "1", "-o", str(shard))
    report = json.loads(run("evaluate", str(shard), "--alone", "--workers", "0"))
    assert report["samples"] == 2 and report["model"]["none"]["mpjpe_mm"] < 40
    assert run.prefix in Path(run("-c", "import handclr_cli as h; print(h.__file__)")).parents


class Installed:
    """The wheel in an environment of its own, which borrows all other packages from this one."""

    def __init__(self, wheel: Path, prefix: Path) -> None:
        self.prefix, self.elsewhere = prefix, prefix.parent / "elsewhere"
        self.elsewhere.mkdir()
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
        pip = [sys.executable, "-m", "pip", "--python", prefix, "install", "--quiet"]
        subprocess.run([*pip, "--no-deps", "--no-index", wheel], check=True)
        # Only now, so that pip does not see this environment's own handclr.
        paths = sysconfig.get_paths(vars={"base": str(prefix), "platbase": str(prefix)})
        (Path(paths["purelib"]) / "borrowed.pth").write_text(sysconfig.get_path("purelib"))

    def __call__(self, *words: str) -> str:
        """What a command prints, run in an empty folder; `-c` is Python's."""
        program = "python" if words[0] == "-c" else "handclr"
        done = subprocess.run(
            [self.prefix / "bin" / program, *words],
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            cwd=self.elsewhere,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def test_one_address_and_one_version_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert citation["license"] == PROJECT["project"]["license"]
    known = (URLS["Source"], URLS["Documentation"], RAW.removesuffix(f"/v{__version__}/"))
    others = []
    for path in [*ROOT.glob("*"), *(ROOT / "docs").rglob("*.md")]:
        if path.is_file() and path.suffix in ("", ".md", ".cff", ".toml", ".yml"):
            named = re.findall(
                r"https://[\w.-]*github[\w.]*/[^\s)>\"']*", path.read_text(encoding="utf-8")
            )
            others += [url for url in named if "handclr" in url and not url.startswith(known)]
    assert others == []
    assert citation["repository-code"] == URLS["Source"]
    assert citation["url"] == URLS["Documentation"]


def test_the_image_copies_what_is_there_and_not_ignored() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [
        name
        for words in re.findall(r"^COPY (?!--from)(.*)$", text, re.M)
        for name in words.split()[:-1]
    ]
    assert {"constraints.txt", "pyproject.toml", "handclr_cli"} <= set(copied)
    wheel = HATCH["build"]["targets"]["wheel"]
    needed = {"README.md", "LICENSE", *wheel["shared-data"], *wheel["force-include"]}
    assert {name.partition("/")[0] for name in needed} <= set(copied)
    assert [name for name in copied if not (ROOT / name).exists() or _ignored(name, rules)] == []


def _ignored(name: str, rules: list[str]) -> bool:
    """Whether Docker leaves a name of the top folder out: the last rule that fits it decides."""
    ignored = False
    for rule in rules:
        if rule and not rule.startswith("#") and fnmatch.fnmatch(name, rule.removeprefix("!")):
            ignored = not rule.startswith("!")
    return ignored


def test_the_arguments_of_the_image_are_valid() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", text, re.M))
    assert re.fullmatch(r"python:3\.11-slim-\w+", arguments["PYTHON"])
    assert arguments["TORCH"] == "cpu"
    named = set(re.findall(r"--build-arg TORCH=(\w+)", text))
    branches = re.search(r'case "\$TORCH" in(.*?)esac', text, re.S)
    assert branches
    patterns = re.findall(r"(?:^|\|)\s*([\w\[\]*-]+)\s*(?=[|)])", branches[1], re.M)
    for value in named | {arguments["TORCH"]}:
        assert any(fnmatch.fnmatch(value, pattern) for pattern in patterns if pattern != "*")
