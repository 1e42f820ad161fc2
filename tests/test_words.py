"""The word index beside a bank: the same results as without it, whatever happens to its files."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latentbank.bank import BankFingerprint, Entry, MemoryBank
from latentbank.bank.words import files, following, index
from latentbank.bank.words.folder import index_bytes, index_folder
from latentbank.bank.words.lists import K1, Floats, Numbers
from latentbank.bank.words.search import Found, best_rows, exact_rows
from latentbank.bank.words.segment import Row, Segment, build_segment, merge_segments
from latentbank.errors import BankError, DamageWarning
from latentbank.parts.retrieval import stored
from latentbank.parts.retrieval.lexical import LexicalIndex
from latentbank.parts.retrieval.stored import StoredIndex, open_stored
from latentbank.parts.retrieval.tokens import Stemmer
from latentbank.parts.retrieval.versions import ShortTexts, Versions, content

PRINT = BankFingerprint("a", "b", "c", "d")
NAMES = [f"{one}{two}" for one in ("zar", "vel", "mon", "kir") for two in ("dun", "fal", "tis")]
PROSE = (
    "harbour winter frozen ships cargo captain letters island painted running runner café the of"
)
WORDS = PROSE.split()


def text(number: int) -> str:
    draw = random.Random(number)
    words = [draw.choice(WORDS) for _ in range(draw.randrange(4, 90))]
    return " ".join([*words, draw.choice(NAMES), f"unique{number}"])


def name(number: int) -> str:
    hexed = blake2b(str(number).encode(), digest_size=8).hexdigest()
    return hexed if number % 3 else f"note <{number}>"


def entry(number: int) -> Entry:
    return Entry(name(number), "verbatim", text(number).encode())


class Opened:
    """A bank with the index beside it, as a method uses it."""

    def __init__(self, path: Path, limit: int = 1 << 30, read_only: bool = False) -> None:
        exists = path.exists()
        self.bank = (
            MemoryBank.open(path, read_only=read_only) if exists else MemoryBank.create(path, PRINT)
        )
        self.taken = 0
        if not exists:
            self.bank.append([entry(0)])
        made = open_stored(self.bank, ("verbatim",), limit, self.take)
        assert made is not None
        self.words: StoredIndex = made
        self.words.follow()

    def take(self, gone: Sequence[str], entries: Sequence[Entry]) -> None:
        self.words.remove([*gone, *(one.id for one in entries)])
        self.words.add([one.id for one in entries], [one.payload.decode() for one in entries])
        self.taken += len(entries)

    def write(self, numbers: Sequence[int]) -> None:
        self.bank.append([entry(number) for number in numbers])
        self.words.follow()

    def found(self) -> list[Any]:
        """What searches give; of documents with equal scores any may come first, or be the last."""
        self.words.follow()
        results: list[Any] = []
        for question in QUESTIONS:
            best = [(round(score, 6), id) for id, score in self.words.search(question, 16)]
            shares = self.words.matches(question, [name(n) for n in range(0, 40, 7)])
            kept = {id for score, id in best if score > best[-1][0]}
            results.append(([score for score, _ in best], kept, [round(x, 9) for x in shares]))
        return results

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *error: object) -> None:
        self.bank.close()


QUESTIONS = [
    "Which captain painted the frozen harbour?",
    "zardun velfal",
    "When did the runners run in the market of montis?",
    "the of a in",
    "cafe 1924 orange-river",
    "unique17 and unique18",
    "xyzzy?",
    "",
]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and segments as for thousands of documents, with dozens."""
    monkeypatch.setattr(stored, "INDEX_FROM", 1)
    monkeypatch.setattr(following, "KEPT_ROWS", 40)
    monkeypatch.setattr(index, "KEPT_ROWS", 40)
    monkeypatch.setattr(index, "MOST_ROWS", 150)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "my.bank"


def filled(path: Path, count: int = 300, **options: Any) -> Opened:
    opened = Opened(path, **options)
    for first in range(0, count, 20):
        opened.write(range(first, first + 20))
    return opened


def as_in_memory(numbers: Iterator[int] | Sequence[int]) -> LexicalIndex:
    made, numbers = LexicalIndex(), list(numbers)
    made.add([name(n) for n in numbers], [text(n) for n in numbers])
    return made


def same(words: StoredIndex, expected: LexicalIndex, only: frozenset[str] | None = None) -> None:
    ids = [name(n) for n in range(0, 320, 9)]
    for question in QUESTIONS:
        got, best = (one.search(question, 16, only) for one in (words, expected))
        assert [score for _, score in got] == pytest.approx([score for _, score in best])
        ties = len({round(score, 9) for _, score in best}) < len(best)
        assert ties or [id for id, _ in got] == [id for id, _ in best]
        assert words.matches(question, ids) == pytest.approx(expected.matches(question, ids))


# ------------------------------------------------------------------------------------ searching


def exhaustive(
    segments: Sequence[Segment], terms: Numbers, weights: Floats, mean: float, top: int
) -> Found:
    found = []
    for at, segment in enumerate(segments):
        scores, norm = np.zeros(len(segment)), segment.norms(mean)
        for place, weight in zip(segment.lists.find(terms), weights, strict=True):
            if place >= 0:
                rows, times = segment.lists.read(place)
                scores[rows] += weight * (K1 + 1) * times / (times + norm[rows])
        scores[~segment.live] = 0
        found += [(float(scores[row]), at, int(row)) for row in np.flatnonzero(scores)]
    return sorted(found, key=lambda one: (-one[0], one[1:]))[:top]


def test_the_best_rows_are_those_of_an_exhaustive_search() -> None:
    draw = np.random.default_rng(0)
    share = 1 / np.arange(3, 2003)
    share /= share.sum()
    hashes = draw.integers(1, 1 << 63, 2000, dtype=np.uint64)
    segments = []
    for count in (700, 400, 60, 1):
        rows = [
            Row(int(draw.integers(1 << 62)), "x", 0, hashes[draw.choice(2000, size, p=share)], b"")
            for size in draw.integers(1, 80, count)
        ]
        segments.append(build_segment(rows))
        segments[-1].bury(draw.choice(count, count // 8, replace=False))
    merged = [merge_segments(segments)]
    assert len(merged[0]) == sum(int(segment.live.sum()) for segment in segments)
    for trial in range(150):
        asked = np.unique(draw.choice(2000, draw.integers(1, 8), p=share if trial % 2 else None))
        terms, weights = hashes[asked], draw.random(len(asked)) * 8 + 0.01
        for mean in (20.0, 60.0):
            best = exhaustive(segments, terms, weights, mean, 16)
            got = best_rows(segments, terms, weights, mean, 16)
            assert [one[0] for one in got] == pytest.approx([one[0] for one in best])
            if len({round(one[0], 9) for one in best}) == len(best):
                assert [one[1:] for one in got] == [one[1:] for one in best]
            again = best_rows(merged, terms, weights, mean, 16)
            assert [one[0] for one in again] == pytest.approx([one[0] for one in best])


def test_the_holders_of_kinds_hold_exactly_their_words() -> None:
    draw = np.random.default_rng(1)
    hashes = draw.integers(1, 1 << 63, 8, dtype=np.uint64)
    share = np.array([30, 20, 10, 5, 3, 2, 1, 1]) / 72
    rows = [
        Row(at, "x", 0, hashes[draw.choice(8, size, p=share)], b"")
        for at, size in enumerate(draw.integers(1, 9, 500))
    ]
    segment, weights = build_segment(rows), draw.random(8) + 0.1
    mask = draw.random(500) < 0.8
    best = dict((row, score) for score, _, row in exhaustive([segment], hashes, weights, 5.0, 500))
    held = np.array([np.isin(hashes, row.terms) for row in rows])
    for trial in range(40):
        some = draw.choice(len(np.unique(held, axis=0)), 6, replace=False)
        kinds = np.unique(held, axis=0)[some]
        kinds = np.concatenate([kinds, np.zeros((1, 8), bool)])  # and one that nothing holds
        asked = np.arange(8) if trial % 2 else np.array([5, 2, 0, 1, 7, 3, 4, 6])
        found = exact_rows(segment, hashes[asked], weights[asked], kinds[:, asked], 5.0, mask)
        for kind, (got, scores) in zip(kinds, found, strict=True):
            wanted = np.flatnonzero((held == kind).all(1) & mask & kind.any())
            assert sorted(got.tolist()) == wanted.tolist()
            assert scores == pytest.approx([best[row] for row in got.tolist()])


def test_a_search_reads_few_of_the_rows_that_share_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    common, rare = np.array([1], np.uint64), np.array([2], np.uint64)
    rows = [
        Row(
            n,
            "x",
            0,
            np.concatenate([common, rare] if n % 500 == 7 else [common] * (n % 9 + 1)),
            b"",
        )
        for n in range(20_000)
    ]
    segment = build_segment(rows)
    read: list[int] = []
    usual = type(segment.lists).read

    def counted(lists: Any, place: int) -> Any:
        found = usual(lists, place)
        read.append(len(found[0]))
        return found

    monkeypatch.setattr(type(segment.lists), "read", counted)
    small, large = build_segment(rows[8:16]), segment
    got = best_rows([large, small], np.array([1, 2], np.uint64), np.array([0.1, 6.0]), 5.0, 8)
    assert [row for _, _, row in got] == [500 * n + 7 for n in range(8)]
    assert read == [40], "the second segment cannot have a better one"


def test_scores_and_matches_are_those_of_the_index_in_memory(path: Path) -> None:
    with filled(path) as opened:
        expected = as_in_memory(range(300))
        same(opened.words, expected)
        same(opened.words, expected, frozenset(name(n) for n in range(0, 300, 5)))
        assert len(opened.words) == 300
        short = ShortTexts()
        short.add([name(n) for n in range(300)], [text(n) for n in range(300)])
        assert all(list(opened.words.short(name(n))) == list(short(name(n))) for n in range(300))
        assert any(short(name(n)) for n in range(300)), "or nothing was compared"


def test_versions_are_those_that_the_bank_itself_tells(path: Path) -> None:
    """Ages, short texts and what may be alike come from the index; none of it changes a result."""
    draw = random.Random(5)
    opened, texts = Opened(path), {name(0): text(0)}
    with opened:
        for number in range(1, 240):
            told = text(number // 6 if number % 2 else number).split()
            told[draw.randrange(len(told))] = draw.choice(["Ångström", "glacier", "zebra"])
            time = f"20{draw.randrange(10, 25)}-03-01" if number % 3 else None
            texts[name(number)] = " ".join(told)
            payload = texts[name(number)].encode()
            opened.bank.append([Entry(name(number), "verbatim", payload, time=time)])
        opened.words.follow()
        words, alike = opened.words, 0
        assert [words.age(id) for id in texts] == [opened.bank.age(id) for id in texts]
        assert {time for time, _ in map(words.age, texts)} > {""}
        short = ShortTexts()
        short.add(list(texts), list(texts.values()))
        for number in range(0, 240, 5):
            question = texts[name(number)]

            def matches(ids: Sequence[str], question: str = question) -> list[float]:
                return words.matches(question, ids)

            def told_by(id: str) -> frozenset[Any]:
                return content(texts[id])

            ranking = words.search_versions(question, 4, 16, None)
            plain = Versions(told_by, opened.bank.age, short, matches)
            quick = Versions(told_by, words.age, words.short, matches, words.sharing)
            expected = plain.resolve(ranking, 4)
            assert quick.resolve(ranking, 4) == expected
            alike += sum(len(one.superseded) for one in expected)
            own = content(question)
            left = words.sharing(own, list(texts))
            near = [id for id in texts if 2 * len(own & told_by(id)) >= len(own | told_by(id))]
            assert set(near) <= set(left), "what is alike is never left out"
        assert alike > 20 and len(left) < len(texts), "or nothing was told apart"


def test_a_stem_is_the_one_of_fts5() -> None:
    one, two = Stemmer().hashes(["Running CAFÉ cafe\u0301", "runs cafe cafe"])
    assert one.tolist() == two.tolist() and len(set(one.tolist())) == 2


# ------------------------------------------------------------------------- opening and following


def test_an_index_that_is_there_is_used_as_it_is(path: Path) -> None:
    with filled(path) as opened:
        before = opened.found()
    with Opened(path) as again:
        assert again.taken == 0 and again.found() == before
    with Opened(path, read_only=True) as reader:
        assert reader.taken == 0 and reader.found() == before


def test_what_others_write_and_delete_is_taken_in(path: Path) -> None:
    with filled(path, 100) as one, Opened(path) as two:
        two.write(range(200, 260))
        two.bank.delete([name(n) for n in range(0, 30)])
        one.words.follow()
        assert one.taken < 200, "only pages that changed are read"
        expected = [*range(30, 100), *range(200, 260)]
        same(one.words, as_in_memory(expected))
        one.write(range(300, 320))
        two.words.follow()
        same(two.words, as_in_memory([*expected, *range(300, 320)]))
    with Opened(path) as again:
        same(again.words, as_in_memory([*expected, *range(300, 320)]))


def test_an_entry_that_changed_is_read_anew(path: Path) -> None:
    with filled(path, 60) as opened:
        opened.bank.delete([name(5)])
        opened.bank.append([Entry(name(5), "verbatim", b"A zebra crossed the glacier.")])
        opened.words.follow()
        assert [id for id, _ in opened.words.search("zebra glacier", 4)] == [name(5)]
        assert name(5) not in dict(opened.words.search("unique5", 4))


@pytest.mark.filterwarnings("ignore::latentbank.errors.DamageWarning")
def test_a_stale_index_catches_up(path: Path) -> None:
    with filled(path, 100):
        pass
    with MemoryBank.open(path) as bank:
        bank.append([entry(n) for n in range(100, 160)])
    with Opened(path) as again:
        assert again.taken < 160
        same(again.words, as_in_memory(range(160)))


def test_a_new_bank_does_not_inherit_an_index(path: Path) -> None:
    with filled(path, 60):
        pass
    path.unlink()
    with MemoryBank.create(path, PRINT):
        assert not index_folder(path).exists()


def test_a_bank_that_became_small_has_no_index(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with filled(path, 60):
        pass
    monkeypatch.setattr(stored, "INDEX_FROM", 1000)
    with MemoryBank.open(path) as bank:
        assert open_stored(bank, ("verbatim",), 1 << 30, lambda gone, entries: None) is None
    assert not index_folder(path).exists()


# -------------------------------------------------------------------------------------- deleting


def raw(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def traces(number: int) -> list[bytes]:
    """What only this document has: its id and the hash of a word."""
    [[term]] = Stemmer().hashes([f"unique{number}"])
    key = name(number).encode() if number % 3 == 0 else bytes.fromhex(name(number))[::-1]
    return [int(term).to_bytes(8, "little"), key]


@pytest.mark.parametrize("opened_before", [True, False])
def test_deleting_leaves_no_trace_in_the_index(path: Path, opened_before: bool) -> None:
    opened = filled(path)
    opened.bank.close()
    before = raw(index_folder(path))
    assert all(trace in before for n in range(40) for trace in traces(n))
    bank = Opened(path).bank if opened_before else MemoryBank.open(path)
    with bank:
        bank.delete([name(n) for n in range(40)])
        after = raw(path.parent)
    assert not [n for n in range(40) for trace in traces(n) if trace in after]
    assert all(trace in after for n in range(40, 300) for trace in traces(n))
    with Opened(path) as again:
        assert again.taken < 200, "it was not built anew"
        same(again.words, as_in_memory(range(40, 300)))


def test_a_deletion_that_the_bank_refuses_loses_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled(path) as opened:
        before = opened.found()

        def refuse(*arguments: object) -> None:
            raise BankError("locked")

        monkeypatch.setattr("latentbank.bank.bank.delete_ids", refuse)
        with pytest.raises(BankError, match="locked"):
            opened.bank.delete([name(n) for n in range(40)])
        assert opened.found() == before


def test_deletions_of_one_write_are_purged_together(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled(path) as opened:
        pass
    with Opened(path) as opened:
        with opened.bank.words.deleting_together():
            for number in range(10):
                opened.bank.delete([name(number)])
                opened.words.follow()
            same(opened.words, as_in_memory(range(10, 300)))
            shutil.copytree(index_folder(path), path.parent / "killed")
        after = raw(index_folder(path))
        assert not [n for n in range(10) for trace in traces(n) if trace in after]
    shutil.rmtree(index_folder(path))
    (path.parent / "killed").rename(index_folder(path))  # as if the process had died before
    with Opened(path):
        after = raw(index_folder(path))
        assert not [n for n in range(10) for trace in traces(n) if trace in after]


# ------------------------------------------------------------------------------- what may happen


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.filterwarnings("ignore::latentbank.errors.DamageWarning")
def test_a_process_may_die_at_any_point(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = as_in_memory(range(60, 220))
    usual = {name: getattr(os, name) for name in ("replace", "unlink", "open")}
    last = -1
    for stop in itertools.count():
        for file in path.parent.iterdir():
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        filled(path, 200).bank.close()
        calls = itertools.count()

        def dying(name: str, stop: int = stop, calls: Any = calls) -> Any:
            def mortal(*arguments: Any, **options: Any) -> Any:
                inside = ".words" in str(arguments[0])
                if inside and next(calls) == stop:
                    raise Killed
                return usual[name](*arguments, **options)

            return mortal

        with monkeypatch.context() as patch:
            for call in usual:
                patch.setattr(os, call, dying(call))
            opened = None
            with suppress(Killed):
                opened = Opened(path)
                opened.bank.delete([name(n) for n in range(60)])
                opened.write(range(200, 220))
                opened.bank.delete([name(219)])
                opened.bank.append([entry(219)])
                opened.bank.close()
                last = stop
            if opened is not None:
                opened.bank.session.close()
        with Opened(path) as again:
            again.bank.delete([name(n) for n in range(60)])
            again.write(range(200, 220))
            same(again.words, expected)
            left = raw(index_folder(path))
            assert not [n for n in range(60) for trace in traces(n) if trace in left], stop
        if last == stop:
            break
    assert last >= 10


def warned(path: Path) -> tuple[list[str], Opened]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opened = Opened(path)
        opened.found()
    return [str(one.message) for one in caught], opened


def damaged_files(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        for at in sorted({0, 9, 14, 40, len(data) // 2, len(data) - 3} & set(range(len(data)))):
            yield file, data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
        if data:
            yield file, data[: len(data) // 2]
            yield file, b""


def test_a_damaged_index_is_built_anew(path: Path) -> None:
    with filled(path, 100) as opened:
        before = opened.found()
    whole = path.parent / "whole"
    shutil.copytree(index_folder(path), whole)
    said = 0
    for file, data in list(damaged_files(whole)):
        shutil.rmtree(index_folder(path))
        shutil.copytree(whole, index_folder(path))
        (index_folder(path) / file.name).write_bytes(data)
        lines, again = warned(path)
        with again:
            assert again.found() == before
            assert all("is damaged" in line and "built anew" in line for line in lines), lines
            assert len(lines) <= 1
        said += len(lines)
    assert said > 10


@pytest.mark.parametrize("lost", ["list", "segment", "all"])
def test_a_missing_index_is_built_anew_and_said_once(path: Path, lost: str) -> None:
    with filled(path, 100) as opened:
        before = opened.found()
    if lost == "all":
        shutil.rmtree(index_folder(path))
    else:
        wanted = "list" if lost == "list" else "*.seg"
        next(iter(index_folder(path).glob(wanted))).unlink()
    lines, again = warned(path)
    with again:
        assert again.found() == before and len(lines) == 1
        assert "Answers are the same" in lines[0] and "\n" not in lines[0]
    with Opened(path) as last:
        assert last.taken == 0


def test_the_index_of_another_bank_or_version_is_not_used(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled(path, 100) as opened:
        before = opened.found()
    other = path.with_name("other.bank")
    with Opened(other) as opened:
        opened.write(range(500, 600))
    shutil.rmtree(index_folder(path))
    shutil.copytree(index_folder(other), index_folder(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)
        with Opened(path) as again:
            assert again.taken >= 99 and again.found() == before  # document 0 is in both
            left = raw(index_folder(path))
        monkeypatch.setattr(stored, "KIND", "another way to stem")
        with Opened(path) as again:
            assert again.taken == 100 and again.found() == before
    assert not [n for n in range(500, 600) for trace in traces(n)[:1] if trace in left]


def test_a_full_disk_leaves_the_bank_as_it_should_be(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    opened = Opened(path)
    with monkeypatch.context() as patch:
        patch.setattr("latentbank.bank.words.folder.write_arrays", full)
        with pytest.warns(DamageWarning, match="No space left") as caught, opened:
            for first in range(0, 300, 20):
                opened.write(range(first, first + 20))
            assert len(caught) == 1, "said once"
            same(opened.words, as_in_memory(range(300)))
            opened.bank.delete([name(5)])
    with pytest.warns(DamageWarning, match="is missing"), Opened(path) as again:
        same(again.words, as_in_memory(n for n in range(300) if n != 5))


def test_an_index_over_its_limit_is_in_memory_only(path: Path) -> None:
    with pytest.warns(DamageWarning, match="limit of 20000 bytes"):
        opened = filled(path, limit=20_000)
    with opened:
        same(opened.words, as_in_memory(range(300)))
        assert index_bytes(path) <= 20_000
    assert index_bytes(path) <= 20_000


def test_a_file_of_arrays_is_checked_slice_by_slice(tmp_path: Path) -> None:
    file, numbers = tmp_path / "f", np.arange(100_000, dtype=np.uint32)
    files.write_arrays(file, {"a": 1}, {"x": numbers, "y": numbers[:0]})
    values, arrays = files.read_arrays(file, frozenset({"x"}))
    assert values == {"a": 1} and len(arrays["y"]) == 0
    assert arrays["x"][10:50_000].tolist() == list(range(10, 50_000))
    data = bytearray(file.read_bytes())
    data[-4] ^= 1
    file.write_bytes(data)
    _, arrays = files.read_arrays(file, frozenset({"x"}))
    assert arrays["x"][0:9].tolist() == list(range(9))
    with pytest.raises(files.DamagedFile):
        arrays["x"][99_990:99_999]
