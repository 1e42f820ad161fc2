"""latentbank: a bounded, compressed memory bank for frozen causal language models.

Importing the package loads neither torch nor transformers; each exported name is imported on use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentbank.adapter import build_method as build_method
    from latentbank.adapter import load_adapter as load_adapter
    from latentbank.adapter import load_method as load_method
    from latentbank.adapter import save_adapter as save_adapter
    from latentbank.answering import Answer as Answer
    from latentbank.answering.chat import ChatAnswer as ChatAnswer
    from latentbank.answering.chat import ChatStream as ChatStream
    from latentbank.answering.chat import Citation as Citation
    from latentbank.backbone.generate import DecodingConfig as Decoding
    from latentbank.backbone.model import Backbone as Backbone
    from latentbank.backbone.model import load_backbone as load_backbone
    from latentbank.backbone.transports import Conditioning as Conditioning
    from latentbank.bank import Entry as Entry
    from latentbank.bank import MemoryBank as MemoryBank
    from latentbank.bank import Receipt as Receipt
    from latentbank.config import setting as setting
    from latentbank.documents.document import Document as Document
    from latentbank.documents.facts import Triple as Triple
    from latentbank.errors import LatentbankError as LatentbankError
    from latentbank.evaluate.data import load_dataset as load_dataset
    from latentbank.method import Method as Method
    from latentbank.method import WriteReport as WriteReport
    from latentbank.method import register as register
    from latentbank.model import MemoryModel as MemoryModel

__version__ = "0.1.0"

_PLACES = {
    "Answer": ("answering", "Answer"),
    "Backbone": ("backbone.model", "Backbone"),
    "ChatAnswer": ("answering.chat", "ChatAnswer"),
    "ChatStream": ("answering.chat", "ChatStream"),
    "Citation": ("answering.chat", "Citation"),
    "Conditioning": ("backbone.transports", "Conditioning"),
    "Decoding": ("backbone.generate", "DecodingConfig"),
    "Document": ("documents.document", "Document"),
    "Triple": ("documents.facts", "Triple"),
    "Entry": ("bank", "Entry"),
    "LatentbankError": ("errors", "LatentbankError"),
    "MemoryBank": ("bank", "MemoryBank"),
    "MemoryModel": ("model", "MemoryModel"),
    "Method": ("method", "Method"),
    "Receipt": ("bank", "Receipt"),
    "WriteReport": ("method", "WriteReport"),
    "build_method": ("adapter", "build_method"),
    "load_adapter": ("adapter", "load_adapter"),
    "load_backbone": ("backbone.model", "load_backbone"),
    "load_dataset": ("evaluate.data", "load_dataset"),
    "load_method": ("adapter", "load_method"),
    "register": ("method", "register"),
    "save_adapter": ("adapter", "save_adapter"),
    "setting": ("config", "setting"),
}
"""Exported name → (module, name there)."""

__all__ = [
    "Answer",
    "Backbone",
    "ChatAnswer",
    "ChatStream",
    "Citation",
    "Conditioning",
    "Decoding",
    "Document",
    "Entry",
    "LatentbankError",
    "MemoryBank",
    "MemoryModel",
    "Method",
    "Receipt",
    "Triple",
    "WriteReport",
    "__version__",
    "build_method",
    "load_adapter",
    "load_backbone",
    "load_dataset",
    "load_method",
    "register",
    "save_adapter",
    "setting",
]


def __getattr__(name: str) -> Any:
    """Import an exported name on first use."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    value = getattr(import_module(f"latentbank.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
