"""What the reference says beside the parser: exit codes, environment variables, files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from .tree import Page

EXIT_CODES = {
    0: "Done.",
    1: "Failed; one line on standard error says why.",
    2: "Wrong options or arguments.",
    3: "Done, but some inputs were skipped (with --strict the first of them is a failure), mine "
    "found crops without another video to pair with, or inspect something missing or damaged.",
    75: "Training was stopped by SIGTERM or --time-limit and is saved: run the same command again "
    "to go on.",
    130: "Interrupted by Ctrl-C.",
    141: "The reader of standard output has closed the pipe.",
    143: "Ended by SIGTERM, with nothing to save.",
}
ENVIRONMENT = {
    "HANDCLR_CACHE": "Folder of downloaded files and headers of videos; default: "
    "$XDG_CACHE_HOME/handclr, else "
    "~/.cache/handclr.",
    "HANDCLR_LANDMARKER": "MediaPipe's hand_landmarker.task, where --landmarker does not name it.",
    "HANDCLR_OFFLINE": "1: download nothing; a file that is missing is an error.",
    "HANDCLR_SHARD_CACHE_GB": "GB of shards that are URLs to keep in HANDCLR_CACHE/shards for the "
    "next run; default: 20, 0 keeps none.",
    "NO_COLOR": "Draw progress bars without colours.",
}
# The commands that look for hands, those that read shards as a whole, and what both read.
FINDERS = ("extract", "keypoints", "evaluate", "predict", "demo")
INDEXERS = ("mine", "pretrain", "finetune", "evaluate", "predict")
READERS = {
    "HANDCLR_CACHE": (*FINDERS, *INDEXERS),
    "HANDCLR_LANDMARKER": FINDERS,
    "HANDCLR_OFFLINE": FINDERS,
    "HANDCLR_SHARD_CACHE_GB": INDEXERS,
}
LANDMARKER_FILE = {
    "~/.cache/handclr/hand_landmarker.task": "MediaPipe's model file, downloaded once and verified "
    "by its checksum each time; HANDCLR_CACHE moves it."
}
RUN_FILES = {
    "DIR/config.json": "Options, seed and versions; --config takes them over.",
    "DIR/log.jsonl": "Losses and other measures, one JSON object a line.",
    "DIR/last.pt": "The last save, from which the same command goes on.",
    "DIR/loss.png": "The loss curve.",
}
WEIGHTS = {
    "pretrain": {"DIR/encoder.pt": "The encoder: a state dict under torchvision's names."},
    "finetune": {
        "DIR/model.pt": "The model, with --validation or --hold-out that of the best epoch.",
        "DIR/model-last.pt": "The model of the last epoch, where the best one is kept.",
    },
}
NEVER_SKIP = ("demo", "synth")

# What is typed or is the name of a file, in a sentence: set in another type.
LITERAL = re.compile(
    r"(?<![\w/-])--?[a-zA-Z][\w-]*"
    r"|(?<!\S)-(?![\w-])"
    r"|[^\s;:,()]*[$%*{}_|\\<>~=][^\s;:,()]*(?<!\.)"
    r"|(?<!\S)[\w-]*\.(?:tar|npz|pt|jsonl?|csv|mp4|html|png|task|txt)\b"
    r"|(?<!\S)(?:HANDCLR|NO)_[A-Z]+"
)


def typeset(text: str, literal: Callable[[str], str], plain: Callable[[str], str]) -> str:
    """A sentence with what is typed in another type than the rest."""
    done, end = "", 0
    for match in LITERAL.finditer(text):
        if len(match[0]) > 1 or match[0] == "-":
            done += plain(text[end : match.start()]) + literal(match[0])
            end = match.end()
    return done + plain(text[end:])


def exit_codes(page: Page) -> dict[int, str]:
    """The codes that a command may end with."""
    is_whole = len(page.words) == 1
    found = dict(EXIT_CODES)
    if not (is_whole or page.has("--time-limit")):
        del found[75]
    if not is_whole and page.words[1] in NEVER_SKIP:
        del found[3]
    return found


def environment(page: Page) -> dict[str, str]:
    """The variables that a command reads."""
    return {
        name: text
        for name, text in ENVIRONMENT.items()
        if name not in READERS or _is_among(page, READERS[name])
    }


def files(page: Page) -> dict[str, str]:
    """Files of a command beside those that its options name."""
    found = LANDMARKER_FILE if _is_among(page, FINDERS) else {}
    return {**found, **RUN_FILES, **WEIGHTS[page.words[1]]} if page.has("--run") else found


def _is_among(page: Page, commands: Sequence[str]) -> bool:
    """Whether a page is that of one of the commands, or of all."""
    return len(page.words) == 1 or page.words[1] in commands
