"""The house as its imports draw it: which file needs which, for the tests of its rules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "handclr_cli"
DEFINED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def modules() -> dict[str, Path]:
    """All files of the package by their dotted names within it."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        found[".".join(path.relative_to(PACKAGE).with_suffix("").parts)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The files that a file imports, wherever in it and under whichever condition."""
    parts = name.split(".")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = parts[: len(parts) - node.level] + (node.module.split(".") if node.module else [])
        for alias in node.names:
            for target in (".".join([*base, alias.name]), ".".join(base)):
                if target in known:
                    yield target
                    break


def needs() -> dict[str, set[str]]:
    """Which files each file imports."""
    known = modules()
    return {name: set(imports(name, path, known)) - {name} for name, path in known.items()}


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The groups of two or more that need each other (Tarjan's strongly connected components)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in order:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == order[name]:
            group = set(stack[stack.index(name) :])
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(group)

    for name in graph:
        if name not in order:
            visit(name)
    return found


def room(name: str) -> str:
    """The folder of a file, or the file itself where it lies at the front."""
    return name.partition(".")[0]


def statements(tree: ast.AST) -> Iterator[ast.stmt]:
    """All statements of a file."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.stmt))


def own_expressions(statement: ast.stmt) -> Iterator[ast.AST]:
    """The expressions of a statement itself, not those of statements inside it."""
    waiting = [node for node in ast.iter_child_nodes(statement) if not isinstance(node, ast.stmt)]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [one for one in ast.iter_child_nodes(node) if not isinstance(one, ast.stmt)]


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The literal texts of a file, those of formatted strings too, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


# Functions and methods that write to a file they are given the name of, or the file itself.
_WRITERS = {
    *("write_text", "write_bytes", "touch", "rename", "symlink_to", "hardlink_to", "tofile"),
    *("imwrite", "imwritemulti", "savefig", "print_png", "print_figure", "VideoWriter"),
    *("SummaryWriter", "savez", "savez_compressed", "savetxt", "to_csv", "urlretrieve"),
}
_WRITERS_OF = {
    "os": {"replace", "rename", "link", "symlink", "mkfifo", "truncate"},
    "shutil": {"copy", "copy2", "copyfile", "copytree", "move"},
    "torch": {"save"},
    "np": {"save"},
}
_FLAGS = ("O_CREAT", "O_WRONLY", "O_RDWR")


def writers(tree: ast.AST) -> Iterator[str]:
    """The calls in a file that may write to a file, as `torch.save` or `open w+b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (found := _written(node)):
            yield found


def _written(call: ast.Call) -> str | None:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
    owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    if name in _WRITERS or name in _WRITERS_OF.get(owner, ()):
        return f"{owner}.{name}" if owner in _WRITERS_OF else name
    if name == "replace" and owner and len(call.args) == 1 and not call.keywords:
        return name  # of a path, as that of a text takes two
    if name in ("open", "ZipFile", "fdopen"):
        return _opened(call, name, owner)
    return None


def _opened(call: ast.Call, name: str, owner: str) -> str | None:
    """How a file is opened, where that is for writing or cannot be told."""
    if owner == "os" and name == "open":
        text = ast.unparse(call)
        return "os.open" if any(flag in text for flag in _FLAGS) or "flags" in text else None
    modes = [word.value for word in call.keywords if word.arg == "mode"]
    beside = call.args[0 if owner and owner not in ("io", "os", "zipfile", "av") else 1 :]
    for mode in modes or beside[:1]:
        if not isinstance(mode, ast.Constant):
            # What a method takes may be something else than how to open.
            return f"{name} {ast.unparse(mode)}" if not owner or "mode" in ast.dump(mode) else None
        if isinstance(mode.value, str) and set(mode.value) & set("wax+"):
            return f"{name} {mode.value}"
    return None
