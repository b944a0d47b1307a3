"""What a file may contain: each rule takes modules or files and returns what breaks it, one line each."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tests.architecture import table
from tests.architecture.modules import Module

Modules = Mapping[str, Module]

_CONSTANT = re.compile(r"_{0,2}[A-Z][A-Z0-9_]*|__[a-z_]+__")
_MUTABLE_CALLS = frozenset({"list", "dict", "set", "bytearray", "defaultdict", "deque", "Counter", "OrderedDict"})
_MUTABLE_LITERALS = ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp


def files_and_functions_are_short(paths: Iterable[Path]) -> list[str]:
    """Size is a cost: long files and long functions are split."""
    broken = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        lines = len(text.splitlines())
        if lines > table.MAX_FILE_LINES:
            broken.append(f"{path} has {lines} lines; at most {table.MAX_FILE_LINES}")
        for node in ast.walk(ast.parse(text, filename=str(path))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > table.MAX_FUNCTION_LINES:
                    broken.append(
                        f"{path}:{node.lineno} {node.name} has {lines} lines; at most {table.MAX_FUNCTION_LINES}"
                    )
    return broken


def pictures_leave_through_the_door(modules: Modules) -> list[str]:
    """`.save` outside the door. What an object is cannot be seen here, so every `.save` of anything but a module counts."""
    broken = []
    for module in modules.values():
        if table.within(module.name, table.MAY_WRITE_PICTURES):
            continue
        imported = _imported_names(module.tree)
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Attribute | ast.Name):
                continue
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            receiver = ast.unparse(node.value) if isinstance(node, ast.Attribute) else ""
            saves = name == "save" and receiver and receiver not in imported
            allowed = (module.name, receiver) in table.SAVES_ALLOWED
            if (saves and not allowed) or name in table.WRITING_CALLS:
                broken.append(f"{module.dotted}:{node.lineno} uses {ast.unparse(node)}; release it through the door")
    return broken


def no_state_in_modules(modules: Modules) -> list[str]:
    """No `global`, no container bound to a variable's name, and no empty constant, which is there to be filled."""
    return [f"{module.dotted}:{line} {what}" for module in modules.values() for line, what in _state_of(module.tree)]


def _state_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield node.lineno, f"declares {', '.join(node.names)} global"
    for node in _statements_of(tree.body):
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        for target in targets:
            name = ast.unparse(target)
            if _is_mutable(value) and (_is_empty(value) or not _CONSTANT.fullmatch(name)):
                yield node.lineno, f"keeps mutable state in {name}"


def _statements_of(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when the module is imported, class bodies apart."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            for part in ("body", "orelse", "finalbody"):
                yield from _statements_of(getattr(node, part, ()))
            for handler in getattr(node, "handlers", ()):
                yield from _statements_of(handler.body)


def _is_mutable(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).rpartition(".")[2] in _MUTABLE_CALLS
    return isinstance(value, _MUTABLE_LITERALS)


def _is_empty(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return not value.args and not value.keywords
    return not (getattr(value, "elts", None) or getattr(value, "keys", None) or getattr(value, "generators", None))


def _imported_names(tree: ast.Module) -> set[str]:
    """The local names of imported modules and functions: `save.save_folder`, `from licht.checkpoint import save`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names - {"Image"}
