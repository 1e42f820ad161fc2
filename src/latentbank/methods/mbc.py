"""The method `mbc`: Memory Bank Compression (Katraouras and Rafailidis, 2026), or with binding.

The paper's form is in `mbc_codes`, the one whose codes stay with their document in `mbc_bound`.
"""

from __future__ import annotations

from latentbank.backbone.model import Backbone
from latentbank.method import register
from latentbank.methods.mbc_bound import BoundMbc
from latentbank.methods.mbc_codes import Mbc, MbcConfig


@register("mbc")
class MbcMethod(Mbc):
    """The paper's form; with `binding=true` a `BoundMbc` is made instead."""

    def __new__(cls, config: MbcConfig, backbone: Backbone) -> Mbc:  # type: ignore[misc]
        """The form that `config` asks for."""
        if config.binding:
            return BoundMbc(config, backbone)
        return super().__new__(cls)
