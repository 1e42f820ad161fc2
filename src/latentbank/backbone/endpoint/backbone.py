"""`EndpointBackbone`: a model that only its server sees, in the place of a loaded one.

It has a name and a length, and no layers: methods that read texts can use it. Knows the form
`openai:URL#MODEL`; requests are the client's.
"""

from __future__ import annotations

import math
import urllib.parse
from collections.abc import Sequence
from types import SimpleNamespace

import torch

from latentbank.backbone.endpoint.client import Client
from latentbank.backbone.layers import Geometry
from latentbank.backbone.model import Backbone
from latentbank.backbone.processor import Exclusive
from latentbank.errors import InputError

__all__ = ["EndpointBackbone"]

POSITIONS = 4096  # tokens; the server may have more, and tells nobody
_BYTES_PER_TOKEN = 3.5  # of English text; fewer, so that a prompt fits


class EndpointBackbone(Backbone):
    """The model MODEL of the server at URL, from `openai:URL#MODEL`.

    Tokens are estimated from bytes. Nothing is asked of the server before the first question.

    Raises:
        InputError: `spec` is not of that form.
    """

    def __init__(self, spec: str, seconds: float | None = None) -> None:
        url, _, name = spec.removeprefix("openai:").partition("#")
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not name:
            raise InputError(
                f"an endpoint is written openai:URL#MODEL, such as "
                f"openai:http://localhost:11434/v1#llama3.2, got {spec!r}"
            )
        self.client = Client(url, name, seconds)
        self.name = spec
        self.geometry = Geometry(1, 1, 1, 1, 1, 1, POSITIONS)
        self.tokenizer = SimpleNamespace(
            get_vocab=dict, chat_template=None, bos_token_id=None, eos_token_id=None
        )
        self.memory = self.engine = self.active_update = None
        self.quick, self.updates = False, []
        self._exclusive = Exclusive()
        self._fingerprint = f"openai:{name}"
        self._tokenizer_fingerprint = "bytes:endpoint"

    @property
    def device(self) -> torch.device:
        """The CPU, for what little is computed here."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """float32."""
        return torch.float32

    def encode(self, texts: Sequence[str], start: bool = True) -> list[list[int]]:
        """Places of the tokens that each text may have; there are no ids."""
        counts = [
            math.ceil(len(text.encode(errors="replace")) / _BYTES_PER_TOKEN) for text in texts
        ]
        return [[0] * (count + start) for count in counts]
