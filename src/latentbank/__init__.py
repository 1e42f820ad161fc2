"""latentbank: a bounded, compressed memory bank for frozen causal language models.

Importing the package loads neither torch nor transformers; each exported name is imported on use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentbank.backbone.model import load_backbone as load_backbone
    from latentbank.bank import MemoryBank as MemoryBank
    from latentbank.documents.document import Document as Document
    from latentbank.evaluate.data import load_dataset as load_dataset
    from latentbank.model import MemoryModel as MemoryModel

__version__ = "0.1.0"

_MODULES = {
    "Document": "latentbank.documents.document",
    "MemoryBank": "latentbank.bank",
    "MemoryModel": "latentbank.model",
    "load_backbone": "latentbank.backbone.model",
    "load_dataset": "latentbank.evaluate.data",
}

__all__ = ["Document", "MemoryBank", "MemoryModel", "__version__", "load_backbone", "load_dataset"]


def __getattr__(name: str) -> Any:
    """Import an exported name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
