"""Codecs over files that ship inside the package. Knows the files and a backbone's tokenizer."""

from __future__ import annotations

import functools
from importlib import resources
from typing import TYPE_CHECKING

from latentbank.codec.counts import unpack_tables
from latentbank.codec.text import ZstdTextCodec
from latentbank.codec.token_counts import CountTables, TokenCounts
from latentbank.codec.token_text import TokenModel, TokenTextCodec

if TYPE_CHECKING:
    from latentbank.backbone.model import Backbone

COUNTED_VOCABULARY = "c0f9bb3293469bf5"  # hash of SmolLM2's vocabulary, whose tokens are counted


@functools.cache
def packaged_dictionary() -> bytes:
    """The zstd dictionary for English prose, trained on SQuAD's `train` split (CC BY-SA 4.0)."""
    return resources.files("latentbank").joinpath("assets/english.zdict").read_bytes()


@functools.cache
def packaged_counts() -> CountTables:
    """Counts of SmolLM2's tokens in SQuAD's training paragraphs (CC BY-SA 4.0)."""
    packed = resources.files("latentbank").joinpath("assets/smollm2.counts").read_bytes()
    return unpack_tables(packed)


def packaged_packer(backbone: Backbone) -> TokenTextCodec | None:
    """The codec by token counts for a backbone with SmolLM2's vocabulary; None for others."""
    if not backbone.tokenizer_fingerprint.endswith(f":{COUNTED_VOCABULARY}"):
        return None
    return token_codec(backbone, TokenCounts(packaged_counts()))


def token_codec(backbone: Backbone, model: TokenModel) -> TokenTextCodec:
    """The codec by a model of the backbone's tokens; falls back on zstd and its dictionary."""
    return TokenTextCodec(
        lambda texts: backbone.encode(texts, start=False),
        functools.partial(
            backbone.tokenizer.decode,
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        ),
        model,
        ZstdTextCodec(packaged_dictionary()),
    )
