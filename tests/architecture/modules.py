"""Reads a package's modules and what they import, without importing them."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "licht"


@dataclass(frozen=True)
class Import:
    """One imported module: `target` is dotted and absolute, `name` what was taken from it (None: the module itself)."""

    target: str
    name: str | None
    line: int
    eager: bool  # happens while the importing module is imported


@dataclass(frozen=True)
class Module:
    """One source file; `name` is without the package's prefix, except that the package itself is called `licht`."""

    name: str
    path: Path
    text: str
    tree: ast.Module
    imports: tuple[Import, ...]

    @property
    def dotted(self) -> str:
        """The absolute name."""
        return self.name if self.name == PACKAGE else f"{PACKAGE}.{self.name}"


def own(target: str) -> str | None:
    """The name without the prefix of one of our modules, None for anybody else's."""
    if target == PACKAGE:
        return PACKAGE
    return target.removeprefix(PACKAGE + ".") if target.startswith(PACKAGE + ".") else None


def read_modules(source: Path) -> dict[str, Module]:
    """All modules of `source/licht`, by name without the prefix."""
    paths = {}
    for path in sorted((source / PACKAGE).rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    modules = {}
    for dotted, path in paths.items():
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text, filename=str(path))
        package = dotted if path.name == "__init__.py" else dotted.rpartition(".")[0]
        imports = tuple(_imports(tree, package, paths, eager=True))
        name = own(dotted)
        assert name is not None
        modules[name] = Module(name, path, text, tree, imports)
    return modules


def external(module: Module) -> Iterator[Import]:
    """Imports of other people's modules."""
    return (found for found in module.imports if own(found.target) is None)


def internal(module: Module) -> Iterator[tuple[str, Import]]:
    """Imports of our own modules, with their names without the prefix."""
    for found in module.imports:
        name = own(found.target)
        if name is not None:
            yield name, found


def _imports(node: ast.AST, package: str, known: Mapping[str, Path], *, eager: bool) -> Iterator[Import]:
    """Imports below a node. Inside functions and under TYPE_CHECKING they count, but not as eager."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, None, node.lineno, eager)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            module = f"{base}.{alias.name}"
            taken = Import(module, None, node.lineno, eager) if module in known else None
            yield taken or Import(base, alias.name, node.lineno, eager)
    elif isinstance(node, ast.Call):
        dynamic = _dynamic_import(node)
        if dynamic is not None:
            yield Import(dynamic, None, node.lineno, eager)
    if isinstance(node, ast.If) and _is_type_checking(node.test):
        for child in node.body:
            yield from _imports(child, package, known, eager=False)
        for child in node.orelse:
            yield from _imports(child, package, known, eager=eager)
        return
    eager = eager and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for below in ast.iter_child_nodes(node):
        yield from _imports(below, package, known, eager=eager)


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def _dynamic_import(call: ast.Call) -> str | None:
    """The module named by `import_module("...")` or `__import__("...")`."""
    if ast.unparse(call.func) not in {"import_module", "importlib.import_module", "__import__"} or not call.args:
        return None
    name = call.args[0]
    return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else None
