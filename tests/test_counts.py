"""Texts by token counts: exact, near the entropy, the same however they are batched, never trusting
their bytes.
"""

import itertools
import json
import subprocess
import sys
from contextlib import suppress
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentbank.backbone.model import load_backbone
from latentbank.codec import rans
from latentbank.codec.counts import pack_tables, unpack_tables
from latentbank.codec.packaged import packaged_dictionary, packaged_packer
from latentbank.codec.text import ZstdTextCodec
from latentbank.codec.token_counts import CountTables, TokenCounts, count_tokens
from latentbank.codec.token_text import TokenTextCodec
from latentbank.errors import BankError

WORDS = ("the river", " runs", " to the sea", ".", " the town", " lies", " on", " the river")
DRAW = np.random.default_rng(5)
CORPUS = ["".join(DRAW.choice(WORDS, 12)) for _ in range(200)]


def byte_tokens(texts: list[str]) -> list[list[int]]:
    return [[1 + byte for byte in text.encode()] for text in texts]


def byte_text(ids: list[int]) -> str:
    return bytes(max(i - 1, 0) for i in ids).decode(errors="replace")


TABLES = count_tokens(byte_tokens(CORPUS), 257)


def byte_codec() -> TokenTextCodec:
    return TokenTextCodec(byte_tokens, byte_text, TokenCounts(TABLES), ZstdTextCodec())


# ---- the entropy coder


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), max_size=40), max_size=6))
def test_streams_round_trip_side_by_side(rows: list[list[int]]) -> None:
    edges = np.array([1, 2, 1000, 1 << 20, (1 << 20) + 5, rans.TOTAL - 1, rans.TOTAL])
    longest = max((len(row) for row in rows), default=0)
    symbols = np.zeros((len(rows), longest), np.int64)
    for i, row in enumerate(rows):
        symbols[i, : len(row)] = row
    streams = rans.encode(
        edges[symbols], edges[symbols + 1] - edges[symbols], [len(row) for row in rows]
    )
    source, found = rans.Decoder(streams), [list[int]() for _ in rows]
    while len(active := source.unfinished()):
        symbol = np.searchsorted(edges, source.points(active), side="right") - 1
        source.advance(active, edges[symbol], edges[symbol + 1] - edges[symbol])
        for i, s in zip(active, symbol, strict=True):
            found[i].append(int(s))
    assert found == rows


def test_a_stream_takes_its_entropy_and_the_bits_of_one_start() -> None:
    widths = np.array([rans.TOTAL // 2, rans.TOTAL // 4, rans.TOTAL // 8])
    lower = 1 + np.concatenate([[0], np.cumsum(widths)[:-1]])
    symbols = np.random.default_rng(0).choice(3, (1, 4000), p=[4 / 7, 2 / 7, 1 / 7])
    [stream] = rans.encode(lower[symbols], widths[symbols], [4000])
    bits = float(np.log2(rans.TOTAL / widths[symbols]).sum())
    assert bits / 8 <= len(stream) <= bits / 8 + 4


# ---- the counts


def dense(counts: TokenCounts, before: int, last: int, recent: list[int]) -> np.ndarray:
    """Widths of all tokens' intervals in one context."""
    row = np.full((1, 256), -1)
    if recent:
        row[0, -len(recent) :] = recent
    mix = counts._mix(np.array([before]), np.array([last]), row)
    ends = [counts._interval(mix, np.array([t])) for t in range(counts.vocabulary)]
    for (_, upper), (lower, _) in itertools.pairwise(ends):
        assert upper == lower  # no gap and no overlap
    assert ends[0][0] == 1 and ends[-1][1] <= rans.TOTAL
    return np.array([int(upper[0] - lower[0]) for lower, upper in ends])


def test_intervals_tile_and_follow_absolute_discounting() -> None:
    # after (1, 2) came 3 twice and 4 once; 2 was followed by 3 three times, by 4 once
    counts = TokenCounts(count_tokens([[1, 2, 3], [1, 2, 3], [1, 2, 4], [5, 2, 3]], 8))
    found = dense(counts, 1, 2, []) / rans.TOTAL
    single = (10 * np.array([0, 1, 2, 1, 1, 1, 0, 0]) + 3) / 84  # 2 follows 1 and 5, 0 nothing
    two = np.zeros(8)
    two[[3, 4]] = np.array([3 - 0.85, 1 - 0.85]) / 4
    two += 2 * 0.85 / 4 * single
    three = np.zeros(8)
    three[[3, 4]] = np.array([2 - 0.85, 1 - 0.85]) / 3
    three += 2 * 0.85 / 3 * two
    np.testing.assert_allclose(found, three, atol=2e-6)


def test_what_the_text_said_becomes_likelier() -> None:
    counts = TokenCounts(TABLES)
    fresh = dense(counts, 10, 11, [])
    again = dense(counts, 10, 11, [11, 200, 10, 11])
    assert again[200] > 20 * fresh[200]
    assert fresh.min() >= 1 and again.min() >= 1  # nothing is impossible


def test_a_repeated_text_of_the_corpus_is_shorter_than_zstd() -> None:
    codec, plain = byte_codec(), ZstdTextCodec()
    texts = ["".join(np.random.default_rng(9 + i).choice(WORDS, 12)) for i in range(20)]
    counted = sum(map(len, codec.encode_all(texts)))
    assert counted < 0.4 * sum(len(plain.encode(text)) for text in texts)


# ---- texts


@settings(max_examples=80, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=8))
def test_texts_round_trip_however_they_are_batched(texts: list[str]) -> None:
    codec = byte_codec()
    together = codec.encode_all(texts)
    assert codec.decode_all(together) == texts
    assert [codec.encode(text) for text in texts] == together
    assert [codec.decode(data) for data in reversed(together)] == texts[::-1]


def test_a_text_beyond_the_window_round_trips() -> None:
    text = "".join(CORPUS)[:3000]
    codec = byte_codec()
    data = codec.encode(text)
    assert len(data) < len(ZstdTextCodec().encode(text))
    assert codec.decode(data) == text


def test_what_the_tokenizer_would_change_goes_to_zstd() -> None:
    lossy = TokenTextCodec(
        lambda texts: byte_tokens([text.lower() for text in texts]),
        byte_text,
        TokenCounts(TABLES),
        ZstdTextCodec(),
    )
    text = "The River Runs To The Sea."
    assert lossy.decode(lossy.encode(text)) == text
    assert lossy.encode(text)[0] < 3
    assert lossy.encode(text.lower())[0] >= 3


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80))
def test_damaged_bytes_are_refused_or_decode_to_some_text(data: bytes) -> None:
    with suppress(BankError):
        assert isinstance(byte_codec().decode(data), str)


# ---- the tables


def test_tables_survive_packing() -> None:
    found = unpack_tables(pack_tables(TABLES))
    for name in CountTables.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(found, name), getattr(TABLES, name))


@pytest.mark.parametrize("data", [b"", b"no tables", b"\x28\xb5\x2f\xfd\x00"])
def test_damaged_tables_are_refused(data: bytes) -> None:
    with pytest.raises(BankError, match="tables of counts are damaged"):
        unpack_tables(data)


@pytest.mark.real_model
def test_the_packaged_counts_keep_every_kind_of_text() -> None:
    packer = packaged_packer(load_backbone("smollm2-135m"))
    assert packer is not None
    sample = resources.files("latentbank").joinpath("samples/squad_sample.jsonl").read_text()
    prose = [json.loads(line)["text"] for line in sample.splitlines()[:60]]
    draw = np.random.default_rng(3)
    odd = [
        "",
        "a",
        "<|endoftext|>",
        "<|im_start|>user\n",
        " \t\r\n",
        "日本語。",
        "Привет",
        "🎉👩‍👧",
    ]
    odd += ["def f(x):\n    return x**2\n", "x" * 3000, "e\u0301 é", "\x00\ufffe"]
    odd += [bytes(draw.integers(0, 256, 80, np.uint8)).decode("latin-1") for _ in range(20)]
    texts = prose + odd
    data = packer.encode_all(texts)
    assert packer.decode_all(data) == texts
    plain = ZstdTextCodec(packaged_dictionary())
    assert sum(map(len, data[:60])) < 0.72 * sum(len(plain.encode(t)) for t in prose)


def test_bytes_are_the_same_in_another_process() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests'); import test_counts as t; "
        "print(b''.join(t.byte_codec().encode_all(t.CORPUS[:20])).hex())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == b"".join(byte_codec().encode_all(CORPUS[:20])).hex()
