"""The method `titans`: a neural memory over a frozen backbone's states, or over its words.

The form of the paper is in `titans_states`, the one whose keys are words in `titans_words`.
"""

from __future__ import annotations

from latentbank.backbone.model import Backbone
from latentbank.method import register
from latentbank.methods.titans_states import Titans, TitansConfig
from latentbank.methods.titans_words import TitansWords

__all__ = ["Titans", "TitansConfig", "TitansMethod", "TitansWords"]


@register("titans")
class TitansMethod(Titans):
    """A memory of states; with `keys=words` a `TitansWords` is made instead."""

    def __new__(cls, config: TitansConfig, backbone: Backbone) -> Titans:  # type: ignore[misc]
        """The form that `config` asks for."""
        if config.keys == "words":
            return TitansWords(config, backbone)
        return super().__new__(cls)
