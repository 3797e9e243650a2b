"""Boxes of other detectors: read from every form, joined with footage, damaged rows named."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from labelled_helpers import handclr

from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.contract.index import ShardIndex
from handclr_cli.footage.detections import boxes_of, read_detections
from handclr_cli.footage.finding import find_footage
from handclr_cli.footage.frames import Footage
from handclr_cli.footage.path_match import find_by_tail
from handclr_cli.hand.square import cut, square_box

HEADER = "video,frame,x0,y0,x1,y1,score,hand\n"
ROW = "a.mp4,30,10,20,110.5,220,0.9,left\n"


def footage(*paths: str) -> list[Footage]:
    """Videos that nobody opens."""
    return [
        Footage("/".join(path.split("/")[-2:]), f"id{row}", (Path(path),), True)
        for row, path in enumerate(paths)
    ]


def touched(folder: Path, *names: str) -> list[Footage]:
    """Footage found in a folder of empty files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return find_footage([str(folder)])


def written(folder: Path, text: str | bytes, name: str = "boxes.csv") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def rows_of(path: str) -> list[tuple[object, ...]]:
    """What was read, a tuple a box: name, frame, box, score, side."""
    table = read_detections(path).table
    return [
        (
            table.names[table.name_id[row]],
            int(table.frame[row]),
            *table.box[row].tolist(),
            float(table.score[row]),
            "left" if table.left[row] else "right",
        )
        for row in range(len(table.box))
    ]


EXPECTED = [
    ("a.mp4", 30, 10.0, 20.0, 110.5, 220.0, 0.9, "left"),
    ("b", 0, -5.0, 0.0, 40.0, 30.0, 0.25, "right"),
]
RECORDS = [
    {
        "video": "a.mp4",
        "frame": 30,
        "x0": 10,
        "y0": 20,
        "x1": 110.5,
        "y1": 220,
        "score": 0.9,
        "hand": "left",
    },
    {
        "video": "b",
        "frame": 0,
        "x0": -5,
        "y0": 0,
        "x1": 40,
        "y1": 30,
        "score": 0.25,
        "hand": "R",
        "more": [1],
    },
]
LINES = "\n".join(map(json.dumps, RECORDS))
DOH = [
    {
        "video": "a.mp4",
        "frame": 30,
        "hand_dets": [[10, 20, 110.5, 220, 0.9, 3, 0.1, 0.2, 0.3, 0]],
        "obj_dets": None,
    },
    {"video": "a.mp4", "frame": 60, "hand_dets": None},
    {"video": "b", "frame": 0, "hand_dets": [[-5, 0, 40, 30, 0.25, 0.0, 0.1, 0.2, 0.3, 1.0]]},
    {"video": "b", "frame": 30, "hand_dets": []},
]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (HEADER + ROW + "b,0,-5,0,40,30,0.25,RIGHT\n", "x.csv"),
        ((HEADER + ROW + "b,0,-5,0,40,30,0.25,1").replace("\n", "\r\n"), "x.csv"),
        (b"\xef\xbb\xbf" + (HEADER + "\n" + ROW + "\n\nb,0.0,-5,0,40,30,0.25,1.0\n").encode(), "x"),
        (
            "More, Hand,SCORE,y1,x1,y0,x0,frame,video\n"
            ',"l",.9,220,110.5,20,10,30,"a.mp4"\n'
            ",r,.25,30,40,0,-5,0,b\n",
            "x.txt",
        ),
        (LINES, "x.jsonl"),
        ("\n" + LINES.replace("\n", "\r\n\r\n") + "\n", "x"),
        (json.dumps(RECORDS, indent=1), "x.json"),
        ("\n".join(map(json.dumps, DOH)), "x.ndjson"),
        (json.dumps(DOH), "x.json"),
    ],
    ids=[
        "csv",
        "crlf",
        "bom",
        "order",
        "jsonl",
        "told-by-its-head",
        "list",
        "100doh",
        "100doh-list",
    ],
)
def test_every_form_of_a_file_reads_the_same(text: str | bytes, name: str, tmp_path: Path) -> None:
    assert rows_of(written(tmp_path, text, name)) == EXPECTED


def test_a_missing_score_is_one(tmp_path: Path) -> None:
    assert rows_of(written(tmp_path, "video,frame,x0,y0,x1,y1,hand\nv,1,0,0,9,9,l\n"))[0][-2:] == (
        1.0,
        "left",
    )
    line = '{"video": "v", "frame": 1, "x0": 0, "y0": 0, "x1": 9, "y1": 9, "hand": "l"}'
    assert rows_of(written(tmp_path, line, "x.json"))[0][-2:] == (1.0, "left")


def test_standard_input_is_read_and_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(LINES.encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    assert rows_of("-") == EXPECTED and not stdin.buffer.closed


def test_chunks_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = HEADER + "".join(
        f"v{row % 7},{row},0,0,{row + 9},9,1,{'lr'[row % 2]}\n" for row in range(50)
    )
    whole = rows_of(written(tmp_path, text))
    monkeypatch.setattr("handclr_cli.footage.detection_file._CHUNK", 7)
    assert rows_of(written(tmp_path, text)) == whole and len(whole) == 50


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        (HEADER, "holds no boxes"),
        (
            "video,frame,x0,y0,x1,y1,score\na,1,0,0,9,9,1\n",
            "line 1: the header names no column hand; crops are",
        ),
        ("video,frame,x0,y0,x1,hand\n", "line 1: the header names no column y1"),
        ("frame,x0,y0,x1,y1,hand\n", "no column video; video, frame (or image)"),
        ("video,frame,x0,y0,x1,y1,hand,x0\n", "names the column x0 twice"),
        ("a,1,0,0,9,9,1,left\n", "line 1: the header names no column"),
        (HEADER + ROW + "a,1,0,0,9,nine,1,left\n", "line 3: y1 'nine': not a number"),
        (HEADER + ROW + "a,1,nan,0,9,9,1,left\n", "line 3: x0 'nan': not a number"),
        (HEADER + ROW + "\na,1,0,0,9,9,inf,left\n", "line 4: score 'inf': not a number"),
        (HEADER + ROW + "a,1,0,0,9,9,,left\n", "line 3: no score; write 1"),
        (HEADER + ROW + "a,1,0,0,9,9,87,left\n", "line 3: score '87': not within 0 and 1"),
        (HEADER + ROW + "a,1,0,0,9,9,1,\n", "line 3: no hand, and"),
        (HEADER + ROW + "a,1,0,0,9,9,1,both\n", "line 3: hand 'both': crops are mirrored by it"),
        (HEADER + ROW + "a,1,0,0,9,9,1,2\n", "line 3: hand '2'"),
        (HEADER + ROW + "a,-1,0,0,9,9,1,l\n", "line 3: frame '-1': not the number of a frame"),
        (HEADER + ROW + "a,1.5,0,0,9,9,1,l\n", "line 3: frame '1.5'"),
        (HEADER + ROW + "a,100000000,0,0,9,9,1,l\n", "line 3: frame '100000000'"),
        (HEADER + ROW + "a,1,9,0,9,9,1,l\n", "line 3: the box [9.0, 0.0, 9.0, 9.0] has no area"),
        (HEADER + ROW + "a,1,0,9,9,0,1,l\n", "line 3: the box [0.0, 9.0, 9.0, 0.0] has no area"),
        (HEADER + ROW + "a,1,0,0,99999,9,1,l\n", "line 3: a box of more than"),
        (HEADER + ROW + "a,1,0,0,9,9,1\n", "line 3: 7 columns, where the header has 8"),
        (HEADER + ROW + ",1,0,0,9,9,1,l\n", "line 3: no video, and"),
        (HEADER + ROW + '"a,1,0,0,9,9,1,l\n', "line 3: not CSV"),
        (HEADER + "a,1,0.1,0.2,0.3,0.4,1,l\n", "write pixels, not shares of the frame"),
        ((HEADER + ROW).encode() + b"caf\xe9,1,0,0,9,9,1,l\n", "line 3: not text in UTF-8"),
        (
            (HEADER + ROW * 2000).encode() + b"caf\xe9,1,0,0,9,9,1,l\n",
            "line 2002: not text in UTF-8",
        ),
        ((HEADER + ROW).encode("utf-16"), "not text in UTF-8"),
        (HEADER + ROW.replace("a.mp4", "a\0.mp4") + "\0\n", "line 3"),
    ],
)
@pytest.mark.slow
def test_a_damaged_csv_is_one_line_that_names_the_place(
    text: str | bytes, words: str, tmp_path: Path
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(HandclrError) as caught:
        read_detections(path)
    assert (
        str(caught.value).startswith(path)
        and words in str(caught.value)
        and "\n" not in str(caught.value)
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no boxes"),
        (LINES + "\n{", "line 3: not JSON"),
        (LINES + "\n[]", "line 3: not a JSON object"),
        ("[" * 200_000, "not JSON"),
        ("[1]", "entry 1: not a JSON object"),
        (json.dumps([{**RECORDS[0], "x1": None}]), "entry 1: no x1, and video"),
        (LINES + "\n" + json.dumps({**RECORDS[0], "x1": [3]}), "line 3: x1 [3]: not a number"),
        (
            LINES + "\n" + json.dumps({**RECORDS[0], "x1": float("nan")}),
            "line 3: x1 nan: not a number",
        ),
        (LINES + "\n" + json.dumps({**RECORDS[0], "x1": 10**400}), "line 3: x1 1000"),
        (LINES + "\n" + json.dumps({**RECORDS[0], "video": {}}), "line 3: video {}: not a name"),
        (
            LINES + "\n" + json.dumps({**RECORDS[0], "video": True}),
            "line 3: video True: not a name",
        ),
        (LINES + "\n" + json.dumps({**RECORDS[0], "hand": ["l"]}), "line 3: hand ['l']"),
        (LINES + "\n" + json.dumps({**RECORDS[0], "hand": None}), "line 3: no hand"),
        (
            json.dumps({"video": "a", "frame": 1, "hand_dets": 3}),
            "line 1: hand_dets must be rows of 10",
        ),
        (
            json.dumps({"video": "a", "frame": 1, "hand_dets": [[1] * 9]}),
            "line 1: a row of hand_dets is not 10",
        ),
        (
            json.dumps({"video": "a", "frame": 1, "hand_dets": [[0, 0, 9, 9, 1, 0, 0, 0, 0, 2]]}),
            "line 1: hand 2",
        ),
        (json.dumps({"video": "a", "frame": 1, "hand_dets": None}), "holds no boxes"),
        (json.dumps(DOH[0]) + "\n" + LINES, "line 2: hand_dets must be"),
        (LINES.encode() + b'\n{"video": "\xff"}', "line 3: not text in UTF-8"),
        (b"[" + b"1,\n" * 9000 + b"\xff]", "line 9001: not text in UTF-8"),
        (b"\n" + b'{"video": "\xff"}', "line 2: not text in UTF-8"),
    ],
)
def test_a_damaged_json_is_one_line_that_names_the_place(
    text: str | bytes, words: str, tmp_path: Path
) -> None:
    path = written(tmp_path, text, "boxes.jsonl")
    with pytest.raises(HandclrError) as caught:
        read_detections(path)
    assert str(caught.value).startswith(path) and words in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(HandclrError, match="cannot read"):
        read_detections(str(tmp_path / "none.csv"))
    with pytest.raises(HandclrError, match="cannot read"):
        read_detections(str(tmp_path))


def test_boxes_come_by_footage_and_frame_the_surest_first(tmp_path: Path) -> None:
    text = (
        "b.mp4,7,0,0,20,10,0.5,l\nP01_01,90,1,1,9,9,0.2,r\nP01_01,30,1,2,31,42,0.7,r\nP01_01,30,5,6,35,46,0.8,l\n"
        "P01_01,60,1,1,9,9,0.1,r\nunknown.mp4,0,1,1,9,9,1,r\n"
    )
    here = footage("/data/P01/P01_01.MP4", "/data/b.mp4", "/data/c.mp4")
    warned: list[str] = []
    path = written(tmp_path, HEADER + text)
    found = boxes_of(read_detections(path), here, warned.append, min_score=0.2)
    assert (
        found.keys() == {"id0", "id1"}
        and found["id0"].numbers == (30, 90)
        and found["id1"].numbers == (7,)
    )
    hands = found["id0"].hands(30)
    assert [(hand.side, hand.score) for hand in hands] == [("left", 0.8), ("right", 0.7)]
    np.testing.assert_array_equal(hands[1].keypoints, [[1, 2], [31, 42]])
    assert square_box(hands[1].keypoints, 1.5) == (-14, -8, 46, 52)
    assert found["id0"].hands(60) == found["id0"].hands(31) == []
    assert warned == [
        f"{path}: 1 of 3 videos are not in the footage and left out, unknown.mp4 first",
        f"{path}: has no boxes for 1 of 3 videos, which are left out, data/c.mp4 first",
    ]
    again = pickle.loads(pickle.dumps(found["id0"]))
    assert again.numbers == (30, 90) and len(pickle.dumps(found["id1"])) < 2000


def test_nothing_in_common_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + ROW)
    with pytest.raises(
        UsageError, match=r"none of its 1 videos is in the footage: it names a.mp4, .* /data/b.mp4"
    ):
        read_detections(path).match(footage("/data/b.mp4"))


@pytest.mark.parametrize(
    ("names", "paths", "rows"),
    [
        (["a.mp4", "b"], ["/x/b.MP4", "/x/a.mp4"], [1, 0]),
        (["/elsewhere/v/a.mp4"], ["/x/a.mp4"], [0]),
        (["p/video.mp4", "q/video.mp4"], ["/x/q/video.mp4", "/x/p/video.mp4"], [1, 0]),
        (["/home/p/video", "/home/q/video"], ["/x/q/video.mp4", "/x/p/video.avi"], [1, 0]),
        (["p/video.mp4", "q/video.mp4"], ["/x/q/video.mp4"], [-1, 0]),
        (["p/video.mp4"], ["/x/q/video.mp4", "/x/r/video.mp4"], [-1]),
        (["p/video.mp4", "q/video.mp4"], ["/x/r/video.mp4"], [-1, -1]),
        (["a"], ["/x/a", "/x/a.mp4"], [0]),
        (["./p//a.mp4", ""], ["/x/p/a.mp4"], [0, -1]),
        (["v1.2"], ["/x/v1.2.mp4", "/x/v1.mp4"], [0]),
        (["xa.mp4"], ["/x/a.mp4"], [-1]),
    ],
)
def test_videos_are_found_by_the_longest_common_tail(
    names: list[str], paths: list[str], rows: list[int]
) -> None:
    assert find_by_tail(names, paths, "boxes.csv") == rows


@pytest.mark.parametrize(
    ("names", "paths"),
    [
        (["P01"], ["/x/P01.mp4", "/x/P01.avi"]),
        (["video.mp4"], ["/x/p/video.mp4", "/x/q/video.mp4"]),
        (["P01", "P01.mp4"], ["/x/P01.mp4"]),
        (["p/video.mp4", "video.mp4"], ["/x/p/video.mp4"]),
    ],
)
def test_a_name_that_may_be_two_is_an_error(names: list[str], paths: list[str]) -> None:
    with pytest.raises(UsageError, match=r"boxes.csv: .* may (both )?be "):
        find_by_tail(names, paths, "boxes.csv")


def test_many_videos_of_one_name_are_found_in_no_time() -> None:
    paths = [f"/data/{number}/video.mp4" for number in range(5000)]
    assert find_by_tail([path[6:] for path in paths], paths, "boxes.csv") == list(range(5000))


def test_images_are_found_by_name_and_get_their_numbers(tmp_path: Path) -> None:
    here = touched(
        tmp_path / "set",
        *(f"P01/frame_{number:06d}.jpg" for number in (60, 0, 30)),
        "P02/x.png",
        "P02/y.png",
    )
    rows = [
        ("P01/frame_000060.jpg", 1),
        ("/home/set/P02/y.png", 2),
        ("P01/frame_000030.jpg", 3),
        ("x.png", 4),
    ]
    rows += [("P01/none.jpg", 5)]
    text = "image,x0,y0,x1,y1,hand\n" + "".join(
        f"{name},0,0,{left + 9},9,l\n" for name, left in rows
    )
    found, notes = (
        (matched := read_detections(written(tmp_path, text)).match(here)).found,
        matched.notes,
    )
    first, second = (found[item.id] for item in here)
    assert first.numbers == (30, 60) and second.numbers == (0, 1)
    assert [first.hands(number)[0].keypoints[1, 0] for number in (30, 60)] == [12, 10]
    assert [second.hands(number)[0].keypoints[1, 0] for number in (0, 1)] == [13, 11]
    assert len(notes) == 1 and "1 of 5 images are not in the footage" in notes[0]


def test_a_box_that_comes_again_is_taken_once(tmp_path: Path) -> None:
    here = touched(tmp_path / "set", "a.mp4", "b.mp4")
    rows = ["a,3,0,0,9,9,l,0.5", "a,3,1,0,9,9,l,0.5", "a,3,0,0,9,9,l,0.5", "a,3,0,0,9,9,r,0.5"]
    rows += ["a,4,0,0,9,9,l,0.5", "b,3,0,0,9,9,l,0.5", "a,3,0,0,9,9,l,0.75", "a,3,0,0,9,9,l,0.5"]
    text = "\n".join(["video,frame,x0,y0,x1,y1,hand,score", *rows])
    matched = read_detections(written(tmp_path, text)).match(here)
    first, second = (matched.found[item.id] for item in here)
    assert first.frame.tolist() == [3, 3, 3, 3, 4] and second.frame.tolist() == [3]
    assert first.score.tolist() == [0.75, 0.5, 0.5, 0.5, 0.5]
    assert first.box[:4, 0].tolist() == [0, 0, 1, 0]
    assert [note.rpartition(": ")[2] for note in matched.notes] == [
        "2 boxes come again in their frame and are taken once"
    ]


def test_a_single_folder_of_images_may_be_called_anything(tmp_path: Path) -> None:
    touched(tmp_path / "here", "a.jpg", "b.jpg")
    text = "image,x0,y0,x1,y1,hand\n/there/b.jpg,0,0,9,9,l\na.jpg,0,0,9,9,r\n"
    detections = read_detections(written(tmp_path, text))
    (found,) = detections.match(find_footage([str(tmp_path / "here")])).found.values()
    assert found.numbers == (0, 1)
    alone = detections.match(find_footage([str(tmp_path / "here" / "*.jpg")])).found
    assert [one.numbers for one in alone.values()] == [(0,), (0,)]


def test_an_image_of_many_folders_needs_its_own(tmp_path: Path) -> None:
    here = touched(tmp_path / "set", "p/a.jpg", "q/a.jpg")
    with pytest.raises(UsageError, match=r"a.jpg is in several folders"):
        read_detections(written(tmp_path, "image,x0,y0,x1,y1,hand\na.jpg,0,0,9,9,l\n")).match(here)


def test_frames_of_image_folders_may_be_named_by_number(tmp_path: Path) -> None:
    here = touched(tmp_path / "set", "P01/frame_000030.jpg", "P01/frame_000060.jpg")
    text = "video,frame,x0,y0,x1,y1,hand\nP01,60,0,0,9,9,l\n"
    assert read_detections(written(tmp_path, text)).match(here).found[here[0].id].numbers == (60,)


@pytest.mark.slow
def test_extract_crops_the_boxes_of_a_folder_of_images(tmp_path: Path) -> None:
    folder, boxes = (
        tmp_path / "images",
        {
            "a": (10, 20, 60, 50),
            "b": (-9, 4, 30, 40),
            "c": (1, 1, 9, 9),
        },
    )
    folder.mkdir()
    pictures = {}
    for name in boxes:
        noise = np.random.default_rng(ord(name)).integers(0, 256, (10, 14, 3)).astype(np.uint8)
        pictures[name] = cv2.resize(noise, (140, 100))
        cv2.imwrite(str(folder / f"{name}.png"), pictures[name])
    rows = [
        f"{name}.png,{','.join(map(str, boxes[name]))},{hand},0.8\n"
        for name, hand in (("b", "l"), ("a", "R"))
    ]
    path, out = (
        written(tmp_path, "image,x0,y0,x1,y1,hand,score\n" + "".join(rows)),
        tmp_path / "out.tar",
    )
    handclr("extract", "--detections", path, "--workers", 0, "-o", out, folder)
    index = ShardIndex([str(out)])
    found = [
        (sample.info["frame"], sample.info["hand"], sample.info["score"], sample.info["box"])
        for sample in index
    ]
    squares = {name: square_box(np.array(boxes[name], float).reshape(2, 2), 1.5) for name in boxes}
    assert found == [(0, "right", 0.8, list(squares["a"])), (1, "left", 0.8, list(squares["b"]))]
    for sample, name in zip(index, "ab", strict=True):
        expected = cut(pictures[name][:, :, ::-1], squares[name], 224, name == "b")
        assert np.abs(sample.image.astype(int) - expected).mean() < 3
