"""Changes of bytes, and of the values that files hold: the file stays one of its kind."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

Draw = np.random.Generator
# Stand-ins for what json.dumps cannot write.
_DEEP, _DIGITS, _BEYOND = "@deep@", "@digits@", "@beyond@"
_RAW = {
    json.dumps(_DEEP).encode(): b"[" * 150_000 + b"]" * 150_000,
    json.dumps(_DIGITS).encode(): b"7" * 5_000,
    json.dumps(_BEYOND).encode(): b"1e999",
}
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**31, 2**63, 10**30, 1e308, 0.5, "", "x", "x" * 5_000, "../../x"),
    *("\x1b[31m\n", [], {}, [[]], [1, "a", None], {"": {}}, float("nan"), _DEEP, _DIGITS, _BEYOND),
)
_DTYPES = ("f8", "f4", "f2", "i4", "i8", "u1", "S3", "U2", "?", "c16", "M8[s]", ">f4")
_SPLICES = (b"\0" * 64, b"\xff" * 64, b"[" * 5_000, b"9" * 5_000, b"\n", b"\0", b"PK\x03\x04", b"{")


def change_bytes(data: bytes, draw: Draw) -> bytes:
    """Flip bits, cut, repeat, swap or insert, once to three times."""
    changed = bytearray(data)
    for _ in range(draw.integers(1, 4)):
        at = int(draw.integers(0, len(changed) + 1))
        size = int(draw.choice([1, 2, 8, 64, 512, 4096]))
        how = draw.integers(0, 6)
        if how == 0 and changed:
            for _ in range(int(draw.integers(1, 9))):
                changed[int(draw.integers(len(changed)))] ^= 1 << int(draw.integers(8))
        elif how == 1:
            del changed[at:]
        elif how == 2:
            del changed[at : at + size]
        elif how == 3:
            changed[at:at] = changed[at : at + size]
        elif how == 4:
            changed[at:at] = _SPLICES[draw.integers(len(_SPLICES))]
        else:
            changed[at : at + size] = draw.bytes(len(changed[at : at + size]))
    return bytes(changed)


def change_json(data: bytes, draw: Draw) -> bytes:
    """Put another value, of another type or out of all bounds, into JSON or a line of it."""
    if data.lstrip()[:1] not in b"[{" or not data.strip():
        return change_bytes(data, draw)
    lines = data.splitlines() if b"}\n{" in data else [data]
    row = int(draw.integers(len(lines)))
    found = json.loads(lines[row])
    for _ in range(int(draw.integers(1, 3))):
        found = _other_value(found, draw)
    text = json.dumps(found).encode()
    for stand_in, raw in _RAW.items():
        text = text.replace(stand_in, raw)
    lines[row] = text
    return b"\n".join(lines)


def _other_value(found: Any, draw: Draw) -> Any:
    places = list(_places(found))
    if not places or draw.integers(12) == 0:
        return _VALUES[draw.integers(len(_VALUES))]
    holder, key = places[draw.integers(len(places))]
    how = draw.integers(6)
    if how == 0:
        del holder[key]
    elif how == 1:
        other, name = places[draw.integers(len(places))]
        holder[key] = json.loads(json.dumps(other[name]))
    elif how == 2 and isinstance(holder[key], list) and holder[key]:
        holder[key] = holder[key][:-1] if draw.integers(2) else holder[key] * 2
    else:
        holder[key] = _VALUES[draw.integers(len(_VALUES))]
    return json.loads(json.dumps(found))


def _places(found: Any) -> Any:
    if isinstance(found, dict | list):
        for key in list(found) if isinstance(found, dict) else range(len(found)):
            yield found, key
            yield from _places(found[key])


def change_array(data: bytes, draw: Draw) -> bytes:
    """Give an array in NPY format another dtype, shape or values."""
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except ValueError:
        return change_bytes(data, draw)
    if array.dtype.kind == "U" and array.ndim == 0:
        text = change_json(str(array).encode(), draw).decode("utf-8", "replace")
        return _npy(np.array(text))
    with np.errstate(all="ignore"):
        how = draw.integers(7)
        if how < 2:
            return _npy(_with_dtype(array, draw) if how else _with_values(array, draw))
        if how == 2:
            return _with_shape(_npy(array), draw)
        if how == 3:
            return change_bytes(data, draw)
    shaped = (array[..., None], array.reshape(-1), array.reshape(-1)[:0], np.stack([array] * 2))
    return _npy(shaped[draw.integers(4)])


def _with_dtype(array: np.ndarray, draw: Draw) -> np.ndarray:
    try:
        return array.astype(str(draw.choice(_DTYPES)))
    except (ValueError, TypeError):
        return array[..., None]


def _with_values(array: np.ndarray, draw: Draw) -> np.ndarray:
    """Three values that cannot be, where the array has numbers."""
    if array.dtype.kind not in "fiu":
        return array[..., None]
    worst = (np.nan, np.inf, 1e30) if array.dtype.kind == "f" else (-1, 0, 127, 2**30)
    flat = np.array(array).reshape(-1)
    for _ in range(min(3, flat.size)):
        flat[draw.integers(flat.size)] = np.array(draw.choice(worst)).astype(array.dtype)
    return flat.reshape(array.shape)


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _with_shape(data: bytes, draw: Draw) -> bytes:
    """A header that promises another shape than there is data for."""
    shapes = (
        "(99999999999,)",
        "(-1,)",
        "()",
        "(2147483648, 2147483648)",
        "(1,)" + " " * 20,
        "(0,)",
    )
    start = data.find(b"'shape': (")
    end = data.find(b")", start) + 1
    shape = shapes[draw.integers(len(shapes))].encode()
    changed = data[: start + 9] + shape + data[end:]
    return changed if draw.integers(2) else changed.replace(b"'descr': '", b"'descr': '|O", 1)


Change = Callable[[bytes, Draw], bytes]


def _by_name(name: str) -> Change:
    if name.endswith(".npy"):
        return change_array
    if name.endswith(".json") or name.startswith("__"):
        return change_json
    return change_bytes


def change_tar(data: bytes, draw: Draw) -> bytes:
    """Change a member of a tar, its name or its place; or the bytes of all."""
    if draw.integers(4) == 0:
        return change_bytes(data, draw)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = [(info.name, archive.extractfile(info).read()) for info in archive]  # type: ignore[union-attr]
    at = int(draw.integers(len(members)))
    name, content = members[at]
    how = draw.integers(8)
    if how == 0:
        del members[at]
    elif how == 1:
        members.insert(int(draw.integers(len(members))), (name, content))
    elif how == 2:
        odd = ("\x1b[31m.jpg", "/../" + name, "x" * 300 + ".json", ".hidden", "a/b.json", "nodot")
        members[at] = (odd[draw.integers(len(odd))], content)
    else:
        members[at] = (name, _by_name(name)(content, draw))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for member, content in members:
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def change_zip(data: bytes, draw: Draw) -> bytes:
    """Change a member of a ZIP archive, such as an NPZ file, or its name; or the bytes of all."""
    if draw.integers(4) == 0:
        return change_bytes(data, draw)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = list(members)[draw.integers(len(members))]
    how = draw.integers(8)
    if how == 0:
        del members[name]
    elif how == 1:
        members["other.npy"] = members.pop(name)
    elif how == 2:
        members[name] = members[name][8:]
    else:
        members[name] = _by_name(name)(members[name], draw)
    buffer = io.BytesIO()
    packing = zipfile.ZIP_DEFLATED if draw.integers(4) == 0 else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, packing)
    return buffer.getvalue()


def change_checkpoint(data: bytes, draw: Draw) -> bytes:
    """Change a value, a shape, a dtype or a name in a checkpoint; or the bytes of all."""
    if draw.integers(4) == 0:
        return change_bytes(data, draw)
    import torch

    state = torch.load(io.BytesIO(data), weights_only=True)
    places = [(holder, key) for holder, key in _all_places(state)]
    holder, key = places[draw.integers(len(places))]
    value, how = holder[key], draw.integers(7)
    if how == 0:
        del holder[key]
    elif how == 1:
        other, name = places[draw.integers(len(places))]
        holder[key] = other.get(name)
    elif how == 2:
        holder[f"{key}x"] = holder.pop(key)
    elif how <= 4 and isinstance(value, torch.Tensor):
        shaped = (lambda: value[None], lambda: value.reshape(-1)[:1], lambda: value.to(torch.int8))
        other_values = (lambda: value * float("nan"), lambda: value.to(torch.float16))
        choices = (*shaped, *other_values, lambda: torch.zeros(2).to_sparse())
        holder[key] = choices[draw.integers(len(choices))]()
    else:
        simple = [one for one in _VALUES if not isinstance(one, str) or "@" not in one]
        holder[key] = simple[draw.integers(len(simple))]
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _all_places(state: Any) -> Any:
    if isinstance(state, dict):
        for key in list(state):
            yield state, key
            yield from _all_places(state[key])


def change_text(data: bytes, draw: Draw) -> bytes:
    """Change a word of lines of text: CSV, TOML or YAML."""
    if draw.integers(3) == 0:
        return change_bytes(data, draw)
    words = ("", "nan", "inf", "-1", "1e999", "9" * 5_000, '"', "[" * 20_000, "x\0", "\x1b[2J")
    words += ("true", "1979-05-27", "&a [*a]", "!!python/object:os.system x", "{", "é", "0x1F", "~")
    lines = data.decode("utf-8", "replace").split("\n")
    at = int(draw.integers(len(lines)))
    parts = lines[at].replace(",", " , ").replace("=", " = ").replace(":", " : ").split(" ")
    parts[draw.integers(len(parts))] = words[draw.integers(len(words))]
    how = draw.integers(6)
    lines[at] = " ".join(parts).replace(" , ", ",")
    if how == 0:
        del lines[at]
    elif how == 1:
        lines.insert(at, lines[at])
    return "\n".join(lines).encode()
