"""A language model of counts: the probability of the next token as an interval of whole numbers.

Trigrams, bigrams and continuation counts with absolute discounting and interpolation (Kneser and
Ney, 1995), mixed with two caches of the text so far: its tokens, and the tokens that followed the
present one (Kuhn and De Mori, 1990). The intervals are the same on every machine; `rans` turns them
into bytes. Knows token ids; knows no text.

The intervals of a context are laid out by token id. That of token w starts at
1 + w + Σ_c ⌊B_c · C_c(w) / Z_c⌋ and ends where that of w + 1 starts. B_c is the mass of component
c, C_c(w) the sum of its discounted counts below w, and Z_c the sum of all. So no interval is empty,
and the rounding leaves no gaps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentbank.codec import rans
from latentbank.errors import BankError

__all__ = ["CountTables", "TokenCounts", "count_tokens"]

IntArray = npt.NDArray[np.int64]
Recent = npt.NDArray[np.int32] | IntArray

START = 0  # comes before every text and is not coded; a text may contain the same id
UNIT, DISCOUNT = 100, 85  # a count of c is worth UNIT·c − DISCOUNT
CONTINUATION, FLOOR = 10, 3  # a token after c different tokens is worth CONTINUATION·c + FLOOR
WINDOW = 256  # tokens that the caches look back
CACHE_SHARE, CACHE_HALF = 12, 30  # percent of the mass; number of tokens that gives half of it
_STREAMS = 256  # texts coded side by side
_TOGETHER = 2048  # tokens whose contexts are computed together
FOLLOW_SHARE, FOLLOW_HALF = 30, 1  # the same for tokens that followed the present one


@dataclass(frozen=True)
class CountTables:
    """Counts of a corpus over `vocabulary` tokens.

    `pair_rows` [V] is the number of different tokens after each token; `pair_tokens` and
    `pair_counts` [P] are these tokens, by id, and their counts. `triple_rows` [P] is the number of
    different tokens after each of the pairs; `triple_tokens` and `triple_counts` [R] are these.
    """

    pair_rows: IntArray
    pair_tokens: IntArray
    pair_counts: IntArray
    triple_rows: IntArray
    triple_tokens: IntArray
    triple_counts: IntArray

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return len(self.pair_rows)


def _together(texts: Sequence[IntArray]) -> Iterator[list[tuple[int, int]]]:
    """(text, begin) of each WINDOW tokens of the texts, in groups of up to about 2,000 tokens."""
    group: list[tuple[int, int]] = []
    size = 0
    for row, text in enumerate(texts):
        for begin in range(0, len(text), WINDOW):
            group.append((row, begin))
            size += min(WINDOW, len(text) - begin)
            if size >= _TOGETHER:
                yield group
                group, size = [], 0
    if group:
        yield group


def count_tokens(texts: Sequence[Sequence[int]], vocabulary: int) -> CountTables:
    """The tables of texts that are given as token ids below `vocabulary`."""
    rows = [np.asarray([START, *text], np.int64) for text in texts]
    stream = np.concatenate([np.zeros(0, np.int64), *rows])
    place = np.concatenate([np.zeros(0, np.int64), *(np.arange(len(row)) for row in rows)])
    pairs, pair_counts = np.unique(
        (stream[:-1] * vocabulary + stream[1:])[place[1:] >= 1], return_counts=True
    )
    first = np.searchsorted(pairs, (stream[:-2] * vocabulary + stream[1:-1])[place[2:] >= 2])
    triples, triple_counts = np.unique(
        first * vocabulary + stream[2:][place[2:] >= 2], return_counts=True
    )
    return CountTables(
        np.bincount(pairs // vocabulary, minlength=vocabulary),
        pairs % vocabulary,
        pair_counts.astype(np.int64),
        np.bincount(triples // vocabulary, minlength=len(pairs)),
        triples % vocabulary,
        triple_counts.astype(np.int64),
    )


class _Followers:
    """Tokens after each context, as sorted keys context · V + token, with discounted counts."""

    def __init__(self, rows: IntArray, tokens: IntArray, counts: IntArray, vocabulary: int) -> None:
        self.ends = np.concatenate([[0], np.cumsum(rows)])
        self.keys = np.repeat(np.arange(len(rows)), rows) * vocabulary + tokens
        self.below = np.concatenate([[0], np.cumsum(UNIT * counts - DISCOUNT)])
        self.vocabulary = vocabulary

    def share(self, context: IntArray, rest: IntArray) -> tuple[IntArray, IntArray]:
        """(mass of `rest` that the followers of each context get, their discounted counts).

        Both are 0 for context −1, which stands for an unknown one.
        """
        first, last = self.ends[context], self.ends[context + 1]
        worth = np.where(context < 0, 0, self.below[last] - self.below[first])
        types = np.where(context < 0, 0, last - first)
        return worth * rest // np.maximum(worth + DISCOUNT * types, 1), worth

    def find(self, context: IntArray, token: IntArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """(index where each context's token is or would be, whether it is there)."""
        key = context * self.vocabulary + token
        order = np.argsort(key)  # in order, neighbours are found in the processor's cache
        at = np.empty_like(key)
        at[order] = np.searchsorted(self.keys, key[order])
        there = self.keys[np.minimum(at, len(self.keys) - 1)] == key if len(self.keys) else at < 0
        return at, there

    def span(self, context: IntArray, token: IntArray) -> tuple[IntArray, IntArray]:
        """(discounted counts of the followers below the token, of those up to it)."""
        at, there = self.find(context, token)
        start = self.below[self.ends[context]]
        low, high = self.below[at] - start, self.below[at + there] - start
        return np.where(context < 0, 0, low), np.where(context < 0, 0, high)


@dataclass(frozen=True)
class _Mix:
    """The components of the mixture in N contexts, with their masses [N] and counts [N]."""

    pair: IntArray
    triple: IntArray
    masses: tuple[IntArray, ...]  # follow, cache, triples, pairs, unigrams
    worths: tuple[IntArray, ...]
    recent: Recent  # [N, W], −1 before the text
    after: npt.NDArray[np.bool_]  # [N, W]: follows the present token


class TokenCounts:
    """Codes texts by the intervals of their tokens, and decodes them."""

    def __init__(self, tables: CountTables) -> None:
        self.vocabulary = v = tables.vocabulary
        self.pairs = _Followers(tables.pair_rows, tables.pair_tokens, tables.pair_counts, v)
        self.triples = _Followers(tables.triple_rows, tables.triple_tokens, tables.triple_counts, v)
        continuations = np.bincount(tables.pair_tokens, minlength=v)
        self.single = np.concatenate([[0], np.cumsum(CONTINUATION * continuations + FLOOR)])

    def most_tokens(self, size_bytes: int) -> int:
        """The most tokens that so many bytes may hold."""
        return min(1 << 14, 64 * (size_bytes + 1))

    # ---- one distribution

    def _mix(self, before: IntArray, last: IntArray, recent: Recent) -> _Mix:
        """The mixture after the tokens `before` and `last` [N].

        `before` is −1 at the first token of a text. `recent` [N, W] are the tokens up to `last`, −1
        before the text.
        """
        pair, there = self.pairs.find(before, last)
        triple = np.where(there & (before >= 0), pair, -1)
        after = np.zeros(recent.shape, bool)
        after[:, 1:] = (recent[:, :-1] == last[:, None]) & (recent[:, :-1] >= 0)
        seen, followed = (recent >= 0).sum(1), after.sum(1)
        rest = np.full(len(last), rans.TOTAL - 1 - self.vocabulary, np.int64)
        follow = rest * FOLLOW_SHARE * followed // (100 * (followed + FOLLOW_HALF))
        rest = rest - follow
        cache = rest * CACHE_SHARE * seen // (100 * (seen + CACHE_HALF))
        rest = rest - cache
        threes, worth3 = self.triples.share(triple, rest)
        rest = rest - threes
        twos, worth2 = self.pairs.share(last, rest)
        masses = (follow, cache, threes, twos, rest - twos)
        single = np.broadcast_to(self.single[-1], last.shape)
        return _Mix(last, triple, masses, (followed, seen, worth3, worth2, single), recent, after)

    def _interval(self, mix: _Mix, token: IntArray) -> tuple[IntArray, IntArray]:
        """(lower, upper) of the interval of one token [N] in each context."""
        smaller = (mix.recent < token[:, None]) & (mix.recent >= 0)
        same = mix.recent == token[:, None]
        follow, cache = (smaller & mix.after).sum(1), smaller.sum(1)
        spans = (
            (follow, follow + (same & mix.after).sum(1)),
            (cache, cache + same.sum(1)),
            self.triples.span(mix.triple, token),
            self.pairs.span(mix.pair, token),
            (self.single[token], self.single[token + 1]),
        )
        lower, upper = 1 + token, 2 + token
        for mass, worth, (low, high) in zip(mix.masses, mix.worths, spans, strict=True):
            least = np.maximum(worth, 1)
            lower, upper = lower + mass * low // least, upper + mass * high // least
        return lower, upper

    def _token_at(self, mix: _Mix, point: IntArray) -> IntArray:
        """The token [N] whose interval holds each point, by bisection."""
        low, high = np.zeros_like(point), np.full_like(point, self.vocabulary)
        while (high - low > 1).any():
            middle = (low + high) // 2
            above = self._interval(mix, middle)[0] <= point
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        return low

    # ---- texts

    def encode(self, texts: Sequence[Sequence[int]]) -> list[bytes]:
        """Bytes of each text of token ids below the vocabulary."""
        streams: list[bytes] = []
        for at in range(0, len(texts), _STREAMS):
            part = [np.asarray(text, np.int64) for text in texts[at : at + _STREAMS]]
            shape = (len(part), max(map(len, part)))
            lower, upper = np.ones(shape, np.int64), np.full(shape, 2, np.int64)
            for places in _together(part):
                low, high = self._interval(*self._contexts([(part[i], b) for i, b in places]))
                done = 0
                for row, begin in places:
                    count = min(WINDOW, len(part[row]) - begin)
                    here, given = slice(begin, begin + count), slice(done, done + count)
                    lower[row, here], upper[row, here] = low[given], high[given]
                    done += count
            streams += rans.encode(lower, upper - lower, [len(text) for text in part])
        return streams

    def _contexts(self, places: Sequence[tuple[IntArray, int]]) -> tuple[_Mix, IntArray]:
        """(mixture, token) at up to WINDOW places of each text from each `begin` on."""
        back = [min(WINDOW, max(begin, len(text))) for text, begin in places]
        width = max(2, *back)
        counts = [min(WINDOW, len(text) - begin) for text, begin in places]
        recent = np.full((sum(counts), width), -1, np.int32)
        before, last, token = np.empty((3, sum(counts)), np.int64)
        done = 0
        for (text, begin), count in zip(places, counts, strict=True):
            here = slice(done, done + count)
            said = np.full(width + count, -1, np.int64)
            known = text[max(begin - width, 0) : begin + count]
            said[len(said) - len(known) :] = known
            recent[here] = np.lib.stride_tricks.sliding_window_view(said[:-1], width)
            before[here], last[here] = said[width - 2 : -2], said[width - 1 : -1]
            token[here] = said[width:]
            if begin == 0:
                last[done] = START
                before[done + 1 : done + min(count, 2)] = START
            done += count
        return self._mix(before, last, recent), token

    def decode(self, streams: Sequence[bytes]) -> list[list[int]]:
        """Token ids of each stream; raises BankError where the bytes are damaged."""
        source = rans.Decoder(streams)
        most = np.array([self.most_tokens(len(data)) for data in streams], np.int64)
        rows = source.unfinished()
        said = np.full((len(streams), 2 + WINDOW), -1, np.int64)
        lengths = np.zeros(len(streams), np.int64)
        step = 0
        while len(rows):
            if step + 2 > said.shape[1] - 1:
                said = np.pad(said, ((0, 0), (0, said.shape[1])), constant_values=-1)
            begun = max(step - WINDOW, 0)
            recent = said[rows, 2 + begun : 2 + step] if step else said[rows, :1]
            last = said[rows, 1 + step] if step else np.full(len(rows), START)
            before = said[rows, step] if step > 1 else np.full(len(rows), START if step else -1)
            mix = self._mix(before, last, recent)
            point = source.points(rows)
            if (point < 1).any() or (step >= most[rows]).any():
                raise BankError("A stored text is damaged: it holds an unknown token.")
            token = self._token_at(mix, point)
            lower, upper = self._interval(mix, token)
            if (point >= upper).any():
                raise BankError("A stored text is damaged: it holds an unknown token.")
            source.advance(rows, lower, upper - lower)
            said[rows, 2 + step] = token
            lengths[rows] += 1
            step += 1
            rows = source.unfinished()
        return [row[2 : 2 + n].tolist() for row, n in zip(said, lengths.tolist(), strict=True)]
