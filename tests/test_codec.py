"""Codecs: every width and codec round-trips, wrong input is refused, damage never hangs."""

import time
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from latentbank.codec import (
    ARRAY_CODECS,
    ZstdTextCodec,
    array_codec,
    pack_bits,
    packed_bytes,
    train_dictionary,
    unpack_bits,
)
from latentbank.errors import BankError, InputError, UnknownNameError

SENTENCES = [
    f"The river {name} rises near the town of {town} and flows {length} km to the sea."
    for name in ("Ilm", "Saale", "Oder", "Main", "Isar", "Lech")
    for town in ("Hof", "Ulm", "Jena", "Graz", "Linz")
    for length in range(100, 900, 37)
]
DICTIONARY = train_dictionary(SENTENCES, 4096)


@pytest.mark.parametrize("bits", range(1, 17))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_bits_round_trip(bits: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=200))
    codes = np.array(values, dtype=np.int64)
    packed = pack_bits(codes, bits)
    assert len(packed) == -(-bits * len(values) // 8) == packed_bytes(bits, len(values))
    assert unpack_bits(packed, bits, len(values)).tolist() == values


@pytest.mark.parametrize("bits", range(1, 17))
def test_bits_round_trip_over_several_blocks(bits: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 2**bits, 150_001)
    packed = pack_bits(codes, bits)
    assert len(packed) == packed_bytes(bits, codes.size)
    np.testing.assert_array_equal(unpack_bits(packed, bits, codes.size), codes)


@pytest.mark.parametrize("bits", [1, 3, 9, 11, 16])
def test_bits_are_a_little_endian_stream(bits: int) -> None:
    codes = [index * 7919 % 2**bits for index in range(50)]
    stream = sum(code << index * bits for index, code in enumerate(codes))
    assert pack_bits(np.array(codes), bits) == stream.to_bytes(packed_bytes(bits, 50), "little")


def test_bits_refuse_what_does_not_fit() -> None:
    with pytest.raises(InputError, match=r"0\.\.511, got 0\.\.512"):
        pack_bits(np.array([0, 512]), 9)
    with pytest.raises(InputError, match="got -1"):
        pack_bits(np.array([-1]), 9)
    with pytest.raises(InputError, match="integers"):
        pack_bits(np.array([1.5]), 9)
    with pytest.raises(InputError, match="bits=17"):
        pack_bits(np.array([1]), 17)
    with pytest.raises(InputError, match="bits=0"):
        unpack_bits(b"", 0, 0)


def test_bits_refuse_damage() -> None:
    with pytest.raises(BankError, match="take 5 bytes, got 4"):
        unpack_bits(b"1234", 9, 4)
    with pytest.raises(BankError, match="padding"):
        unpack_bits(b"\xff\xff", 9, 1)
    with pytest.raises(BankError):
        unpack_bits(b"", 9, 10**15)  # must not allocate


floats = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 8), st.integers(1, 40)),
    elements=st.floats(-1000, 1000, width=32),
)


@settings(max_examples=100, deadline=None)
@given(array=floats)
def test_array_codecs_keep_what_they_promise(array: np.ndarray) -> None:
    rows, dim = array.shape
    for codec in ARRAY_CODECS.values():
        data = codec.encode(array)
        assert len(data) == rows * codec.row_bytes(dim)
        decoded = codec.decode(data, dim)
        assert decoded.shape == array.shape
        assert decoded.dtype == np.float32
        if codec.name == "float32":
            np.testing.assert_array_equal(decoded, array)
        elif codec.name == "float16":
            np.testing.assert_array_equal(decoded, array.astype(np.float16).astype(np.float32))
        else:
            absmax = np.abs(array).max(axis=1, keepdims=True, initial=0)
            step = absmax / 127 * (1 + 2**-10) + 2**-24  # the scale, rounded up to a float16
            assert (np.abs(decoded - array) <= step / 2 * (1 + 1e-5)).all()


@pytest.mark.parametrize(("name", "size"), [("float32", 4000), ("float16", 2000), ("int8", 1020)])
def test_array_codec_sizes(name: str, size: int) -> None:
    assert len(array_codec(name).encode(np.ones((10, 100), np.float32))) == size


def test_array_codecs_refuse_wrong_input() -> None:
    for codec in ARRAY_CODECS.values():
        with pytest.raises(InputError, match=r"\[rows, dim\]"):
            codec.encode(np.zeros(3, np.float32))
        with pytest.raises(InputError, match="NaN"):
            codec.encode(np.array([[np.nan]], np.float32))
        with pytest.raises(BankError, match="damaged"):
            codec.decode(b"12345", 4)
    with pytest.raises(InputError, match="65504"):
        array_codec("float16").encode(np.array([[70000.0]], np.float32))
    with pytest.raises(InputError, match="int8 rows"):
        array_codec("int8").encode(np.array([[1e9]], np.float32))
    with pytest.raises(UnknownNameError, match=r"Did you mean 'float16'.*Known: float16, float32"):
        array_codec("flaot16")


@pytest.mark.parametrize("dictionary", [None, DICTIONARY], ids=["plain", "dictionary"])
@settings(max_examples=150, deadline=None)
@given(
    text=st.one_of(
        st.text(max_size=300),
        st.lists(st.sampled_from(SENTENCES), max_size=20).map(" ".join),
        st.builds(lambda text, times: text * times, st.text(max_size=20), st.integers(0, 20000)),
    )
)
def test_text_round_trip(dictionary: bytes | None, text: str) -> None:
    codec = ZstdTextCodec(dictionary, level=3)
    data = codec.encode(text)
    assert codec.decode(data) == text
    assert len(data) <= len(text.encode()) + 1


@pytest.mark.parametrize("size", [131_071, 131_072, 131_073, 1_000_000])
def test_text_round_trip_around_the_size_of_a_block(size: int) -> None:
    letters = np.random.default_rng(0).choice(list("abcdefgh \n"), size)
    text = "".join(letters)
    for codec in (ZstdTextCodec(), ZstdTextCodec(DICTIONARY)):
        data = codec.encode(text)
        assert codec.decode(data) == text
        assert len(data) < size // 2


def test_a_dictionary_makes_short_texts_much_shorter() -> None:
    text = "The river Aare rises near the town of Bern and flows 288 km to the sea."
    plain, trained = ZstdTextCodec().encode(text), ZstdTextCodec(DICTIONARY).encode(text)
    assert len(trained) < 0.6 * len(plain)


def test_text_decoding_refuses_damage_and_bombs() -> None:
    codec = ZstdTextCodec()
    good = codec.encode("to be or not to be, " * 50)
    for data in (b"", b"\x07abc", b"\x00\xff", good[:-1], good + b"!", b"\x02" + good[1:]):
        with pytest.raises(BankError):
            codec.decode(data)
    with pytest.raises(InputError, match="surrogate"):
        codec.encode("\ud800")
    run = b"\x02\x00\x38" + b"\x02\x00\x10" + b"a"  # a frame with a block of 128 KiB of "a"
    bomb = run[:3] + run[3:] * 1000  # 128 MiB, and no last block
    started = time.monotonic()
    with pytest.raises(BankError):
        codec.decode(bomb)
    assert time.monotonic() - started < 10


@settings(max_examples=300, deadline=None)
@given(junk=st.binary(max_size=80), kind=st.sampled_from([b"\x00", b"\x01", b"\x02", b"\x02\x00"]))
def test_text_decoding_of_any_bytes_ends_in_text_or_bank_error(junk: bytes, kind: bytes) -> None:
    try:
        text = ZstdTextCodec().decode(kind + junk)
    except BankError:
        return
    assert isinstance(text, str)


def test_a_frame_that_declares_a_huge_size_is_not_believed() -> None:
    huge = b"\x02\xe0" + (2**62).to_bytes(8, "little") + b"\x01\x00\x00"
    with pytest.raises(BankError, match="no known form"):
        ZstdTextCodec().decode(huge)


def test_another_dictionary_does_not_pass_for_the_right_one() -> None:
    other = train_dictionary([line[::-1] for line in SENTENCES], 4096)
    data = ZstdTextCodec(DICTIONARY).encode(SENTENCES[7])
    with suppress(BankError):
        assert ZstdTextCodec(other).decode(data) != SENTENCES[7]


def test_dictionary_training_refuses_too_little_text() -> None:
    with pytest.raises(InputError, match="2 texts"):
        train_dictionary(["one", "two"], 4096)
    with pytest.raises(InputError, match="size_bytes=10"):
        train_dictionary(SENTENCES, 10)
    with pytest.raises(InputError, match="level"):
        ZstdTextCodec(level=0)
