"""The architecture as data: docs/architecture.md says why, this says exactly what.

Layers are modules below `licht`, without that prefix; `licht/__init__.py` itself is called "licht". A module belongs to
the layer with the longest matching name, and may always import its own layer. A layer may stand here before it exists.
"""

from collections.abc import Mapping
from types import MappingProxyType

SERVICE_PARTS = (
    *("service.queue", "service.storage", "service.gallery", "service.metering", "service.webhooks"),
    *("service.keys", "service.links", "service.fetch", "service.uploads", "service.series", "service.mcp"),
)
# What all of the service stands on: the tables, and the settings.
SERVICE_BASE = ("service.database", "service.settings")
SAFETY_WITHOUT_TORCH = (
    *("safety.policy", "safety.images", "safety.prompt_filter", "safety.hashes", "safety.provenance"),
    *("safety.examine", "safety.screening", "safety.registry", "safety.overrides", "safety.terms"),
)
ANYTHING = ("*",)

# Who may import whom.
MAY_IMPORT: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "core": (),
        "model": ("core",),
        "sampling": ("core",),
        "world": ("core",),
        "quant": ("core", "model"),
        "safety": ("core",),
        "checkpoint": ("core", "model", "quant"),
        "plan": ("core", "model.variants"),
        "engine": ("core", "model", "quant", "checkpoint", "sampling", "plan"),
        "finish": ("core",),
        "files": ("core", "safety"),
        "upsample": ("core",),
        "generate": ("core", "model.variants", "engine", "safety", "finish", "upsample"),
        "training": ("core", "model", "quant", "checkpoint", "sampling", "world"),
        "evaluation": (
            *("core", "world", "model", "checkpoint", "sampling", "engine", "generate"),
            # the judge is trained too; `trained` opens runs that are measured before they are exported
            *("training.loop", "training.optim", "training.config", "training.pictures", "training.state"),
            "training.draws",
            "training.workers",
        ),
        "client": ("core",),
        "service": (),
        **dict.fromkeys((*SERVICE_BASE, "service.logs", "service.supervise", "service.telemetry"), ("core",)),
        **dict.fromkeys(SERVICE_PARTS, ("core", "service.database")),
        "service.gallery": ("core", "service.database", "service.queue"),
        "service.webhooks": ("core", "service.database", "service.fetch"),
        "service.retention": ("core", "service.database", "service.queue", "service.storage"),
        "service.api": (
            *("core", "plan", *SAFETY_WITHOUT_TORCH, *SERVICE_BASE, *SERVICE_PARTS),
            *("service.logs", "service.retention", "service.telemetry", "upsample.chat", "files.sheet"),
        ),
        "service.worker": (
            "core",
            "service.queue",
            "service.storage",
            "service.telemetry",
            "generate",
            "plan",
            "finish",
            "upsample",
        ),
        "service.ray": ("core", "service.queue", "service.storage", "generate", "plan"),
        "studio": (),
        "recipes": ANYTHING,
        "cli": ANYTHING,
        "__main__": ("cli",),
        "licht": ANYTHING,
    }
)

# What these may import while they are imported themselves; the rest of their row only inside a function.
MAY_IMPORT_EAGERLY: Mapping[str, tuple[str, ...]] = MappingProxyType({"cli": ("core", "cli"), "licht": ("core",)})

# From the rest of Licht these take frozen dataclasses, enumerations and constants, and no behaviour.
CONFIGURATION_ONLY = ("recipes",)

# Never torch, not even inside a function: planning, policing and answering HTTP must work where torch is not wanted.
NEVER_TORCH = (
    "core",
    "plan",
    "model.variants",
    "client",
    "service.api",
    *SERVICE_BASE,
    *SERVICE_PARTS,
    *SAFETY_WITHOUT_TORCH,
)
# Importing these must not import torch either: `licht --help` answers at once.
NO_TORCH_ON_IMPORT = (*NEVER_TORCH, "cli", "__main__", "licht")

# Beside the standard library.
CORE_MAY_USE = ("pydantic",)

# The reference implementation takes seconds to import and is not needed for drawing. These may use it, inside functions.
REFERENCE_LIBRARIES = ("transformers", "diffusers")
MAY_USE_REFERENCE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "safety.asking": ("transformers",),  # a language model, or a classifier, that the operator has put there
        "safety.folder_classifier": ("transformers",),
        "upsample.local": ("transformers",),  # needs the whole language model, not only our cut towers
        "evaluation.golden": ("transformers", "diffusers"),  # `licht doctor --golden` compares with it
    }
)

# Who may write a picture. Everything else goes through `safety.policy.release`.
MAY_WRITE_PICTURES = ("safety", "evaluation.sheets", "world")
WRITING_CALLS = ("save_image", "imwrite")  # what other libraries call it
# (module, receiver) of a `.save` that is no picture's, or that goes through the door by itself; each with its reason.
SAVES_ALLOWED: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        **dict.fromkeys(
            (("cli.drawing", "event"), ("cli.runner", "event")),
            "a generate.Result, which writes what the door has released",
        ),
        ("client", "upload"): "a reference on its way to the endpoint, not a result",
        ("upsample.chat", "upload"): "a reference on its way to a language model, not a result",
    }
)

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 100
MAX_TREE_BYTES = 56 * 2**20


def within(name: str, layers: tuple[str, ...]) -> bool:
    """Whether a module, named without the prefix, is one of these layers or lies below one of them."""
    return any(layer in {"*", name} or name.startswith(layer + ".") for layer in layers)


def layer_of(name: str) -> str | None:
    """The layer of a module, named without the prefix; None if the table has no place for it."""
    return max((layer for layer in MAY_IMPORT if within(name, (layer,))), key=len, default=None)
