"""Who imports whom: each rule takes modules and returns what breaks it, one line each."""

import ast
import graphlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.architecture import table
from tests.architecture.modules import PACKAGE, Module, external, internal

Modules = Mapping[str, Module]


def layers_import_only_what_they_may(modules: Modules) -> list[str]:
    """The import table, for imports anywhere in a file; type-checking ones count too."""
    broken = []
    for module in modules.values():
        layer = table.layer_of(module.name)
        if layer is None:
            broken.append(f"{module.dotted} belongs to no layer of the import table")
            continue
        for target, found in internal(module):
            if (target, found.name) == (PACKAGE, "__version__"):
                continue  # everything else of the package itself stands for a layer behind it
            may = table.MAY_IMPORT[layer]
            if found.eager:
                may = table.MAY_IMPORT_EAGERLY.get(layer, may)
            if table.layer_of(target) != layer and not table.within(target, may):
                broken.append(f"{module.dotted}:{found.line} may not import {found.target}")
    return broken


def configuration_layers_take_no_behaviour(modules: Modules) -> list[str]:
    """Recipes take frozen dataclasses, enumerations and constants from the other layers."""
    broken = []
    for module in modules.values():
        if not table.within(module.name, table.CONFIGURATION_ONLY):
            continue
        for target, found in internal(module):
            if table.within(target, table.CONFIGURATION_ONLY):
                continue
            if found.name is None or target not in modules or not _is_configuration(modules[target], found.name):
                taken = found.name or "the whole module"
                broken.append(f"{module.dotted}:{found.line} takes {taken} of {found.target}, not configuration")
    return broken


def no_import_cycles(modules: Modules) -> list[str]:
    """No module needs itself while it is imported; packages that are passed through on the way count."""
    needs: dict[str, set[str]] = {}
    for module in modules.values():
        targets = {target for target, found in internal(module) if found.eager}
        passed = {".".join(target.split(".")[:end]) for target in targets for end in range(1, target.count(".") + 1)}
        above = {parent for parent in passed if not table.within(module.name, (parent,))}
        needs[module.name] = (targets | above) & modules.keys() - {module.name}
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        return [" <- ".join(modules[name].dotted for name in error.args[1])]
    return []


def torch_stays_out(modules: Modules) -> list[str]:
    """The layers that work without torch never import it, not even inside a function."""
    return [
        f"{module.dotted}:{found.line} imports {found.target}"
        for module in modules.values()
        if table.within(module.name, table.NEVER_TORCH)
        for found in external(module)
        if found.target.split(".")[0] == "torch"
    ]


def core_uses_only_the_standard_library(modules: Modules) -> list[str]:
    """The shared vocabulary needs nothing installed but what the table names."""
    allowed = {*sys.stdlib_module_names, *table.CORE_MAY_USE}
    return [
        f"{module.dotted}:{found.line} imports {found.target}"
        for module in modules.values()
        if table.layer_of(module.name) == "core"
        for found in external(module)
        if found.target.split(".")[0] not in allowed
    ]


def reference_libraries_stay_out(modules: Modules) -> list[str]:
    """`transformers` and `diffusers` only in the named modules, and there only inside functions."""
    broken = []
    for module in modules.values():
        may = table.MAY_USE_REFERENCE.get(module.name, ())
        for found in external(module):
            library = found.target.split(".")[0]
            if library in table.REFERENCE_LIBRARIES and (library not in may or found.eager):
                broken.append(f"{module.dotted}:{found.line} imports {found.target}")
    return broken


def must_import_without_torch(modules: Modules) -> list[str]:
    """The absolute names of all modules that may not pull torch in."""
    return sorted(module.dotted for name, module in modules.items() if table.within(name, table.NO_TORCH_ON_IMPORT))


def pulled_in_by_importing(source: Path, names: Sequence[str], library: str) -> list[str]:
    """Imports the modules one after another in one fresh process; tells the first that brought the library in.

    One process for all: starting Python and importing pydantic costs more than everything that is looked at.
    """
    program = (
        "import importlib, json, sys\n"
        "source, library, names = json.loads(sys.argv[1])\n"
        "sys.path.insert(0, source)\n"
        "for name in names:\n"
        "    importlib.import_module(name)\n"
        "    if library in sys.modules:\n"
        "        sys.exit(f'importing {name} imports {library}')\n"
    )
    arguments = json.dumps([str(source), library, list(names)])
    run = subprocess.run(
        [sys.executable, "-c", program, arguments], capture_output=True, text=True, check=False, timeout=120
    )
    return [] if run.returncode == 0 else run.stderr.strip().splitlines()[-1:]


def _is_configuration(module: Module, name: str) -> bool:
    """Whether a name of a module is a frozen dataclass, an enumeration or a constant (in capitals)."""
    if name.isupper():
        return True
    for node in module.tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            decorators = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
            bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
            return ("dataclass(" in decorators and "frozen=True" in decorators) or bool(bases & {"Enum", "StrEnum"})
        if isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names):
            return False  # take it from where it is defined
    return False
