"""Arithmetic of a budget: what a write may cost, how large file and log may be together.

Knows bytes and SQLite's page structure; touches no file. A write needs room twice: in the file, and
in the log or journal that makes it atomic. A part of the budget is kept free for the latter.
"""

from dataclasses import dataclass
from math import ceil

__all__ = ["LARGE_BUDGET", "Space", "least_budget"]

LARGE_BUDGET = 1 << 20  # from here on a bank has a write-ahead log and 32 KiB of shared memory
_SMALL_PAGE, _LARGE_PAGE = 512, 1024
_SHARED = 32 * 1024  # of the log's shared-memory file, for each 4,062 frames
_SHARED_FRAMES = 4062
_FRAME_HEADER = 24  # of the log
_LOG_HEADER = 1024  # more than the log's header
_JOURNAL_HEADER, _JOURNAL_FRAME = 512, 8
_JOURNAL_SHARE = 0.45  # of what a log would take: a journal has old pages only (most seen: 0.39)
_BASE_PAGES = 10  # page 1, roots, free-list trunks and pointer maps of any transaction
_PAGE_STRUCTURE = 6  # leaves, siblings and parents that a page's three rows move
_ITEM_STRUCTURE = 5
_MAX_RESERVE = 4 << 20
_KEPT_PAGES = 2  # of a tiny bank's file, for deletions
_KEPT_PAGE_BYTES = 32 * 1024  # of payloads on one page of a bank without a budget


@dataclass(frozen=True)
class Space:
    """The limits that follow from a budget; None: no limit.

    Raises nothing. `MemoryBank.create` refuses a budget that is too small for an empty bank.
    """

    budget: int | None

    @property
    def has_log(self) -> bool:
        """Whether writes go through a write-ahead log.

        A small bank has a rollback journal, which needs no shared-memory file beside it.
        """
        return self.budget is None or self.budget >= LARGE_BUDGET

    @property
    def sqlite_page(self) -> int:
        """Bytes of a page of the file."""
        return _LARGE_PAGE if self.has_log else _SMALL_PAGE

    @property
    def page_bytes(self) -> int:
        """Payload bytes of one page of entries, unless one entry has more."""
        if self.budget is None:
            return _KEPT_PAGE_BYTES
        return min(_KEPT_PAGE_BYTES, max(1024, self.budget // (256 if self.has_log else 64)))

    @property
    def tail_bytes(self) -> int:
        """A page with fewer bytes takes further entries.

        A fuller one is left alone until it is joined with others, so that a small write stays
        small.
        """
        return max(512, self.page_bytes // 4) if self.has_log else self.page_bytes

    @property
    def open_bytes(self) -> int:
        """A page with fewer bytes may be joined with others."""
        return max(self.page_bytes // 2, self.tail_bytes)

    @property
    def page_entries(self) -> int:
        """Entries that one page holds at most."""
        return min(256, max(16, self.page_bytes // 16))

    @property
    def reserve(self) -> int:
        """Bytes kept free for the log or journal of a write; enough to fade one page."""
        if self.budget is None:
            return 0
        least = self.cost(8 * self.page_bytes, pages=4, items=1)
        return max(least, min(self.budget // 10, _MAX_RESERVE))

    @property
    def limits_log(self) -> bool:
        """Whether a transaction's log or journal has a limit.

        It has none in a bank so small that the journal may hold all of its file.
        """
        if self.budget is None:
            return False
        return self.has_log or self.budget - self.reserve > self._half

    @property
    def _half(self) -> int:
        """The largest file that fits into the budget together with a journal of all its pages."""
        each = 2 * self.sqlite_page + _JOURNAL_FRAME
        return max(0, (self.budget or 0) - _JOURNAL_HEADER) // each * self.sqlite_page

    @property
    def slack(self) -> int:
        """Bytes that fading frees beyond what is needed, so that the next writes need not fade."""
        return 0 if self.budget is None else min(self.budget // 64, 64 * 1024)

    @property
    def part_bytes(self) -> int | None:
        """Bytes of new entries that one transaction takes; more are stored in several."""
        return None if self.budget is None else max(512, self.reserve // 16)

    @property
    def part_pages(self) -> int:
        """Pages on which one part of a write may count documents again."""
        if self.budget is None or not self.limits_log:
            return 1 << 30
        pages = 1
        while self.cost((7 + 3 * pages) * self.page_bytes, 4 + pages) <= self.reserve:
            pages += 1
        return pages

    @property
    def margin_bytes(self) -> int:
        """Bytes of the file for the structure around new content; 0 in a tiny bank."""
        return 2 * self.sqlite_page if self.limits_log else 0

    def cost(self, changed_bytes: int, pages: int = 0, items: int = 0) -> int:
        """An upper bound of the log bytes of a change.

        Args:
            changed_bytes: old and new bytes of everything that is rewritten.
            pages: pages of entries that are rewritten with their facts.
            items: items that are rewritten.
        """
        changed = changed_bytes + pages * (6 * self.page_entries + 120)
        content = ceil(1.02 * changed / (self.sqlite_page - 8))  # 1.02: trunks and pointer maps
        structure = _BASE_PAGES + pages * _PAGE_STRUCTURE + items * _ITEM_STRUCTURE
        cost = _LOG_HEADER + (structure + content) * (self.sqlite_page + _FRAME_HEADER)
        return cost if self.has_log else round(_JOURNAL_SHARE * cost)

    def file_limit(self, cost: int) -> int:
        """The largest file beside which a transaction of `cost` keeps to the budget.

        A journal never holds more than the file had. So half the budget is safe for any cost. Two
        pages of it are left to deletions: see `hard_limit`.
        """
        if self.budget is None:
            return 1 << 62
        beside = self._beside(max(cost, self.reserve))
        if self.has_log:
            return self.budget - beside
        return max(self._half - _KEPT_PAGES * self.sqlite_page, self.budget - beside)

    def hard_limit(self) -> int:
        """The largest file at any time.

        The tombstones of a deletion may use half the reserve. A deletion in a tiny bank may take
        two pages: a row that becomes shorter moves from pages of its own into the tree, and the
        tree may grow by a level.
        """
        if self.budget is None:
            return 1 << 62
        largest = max(self.file_limit(0), self.budget - self._beside(self.reserve // 2))
        return largest if self.has_log else max(self._half, largest)

    def log_limit(self, file_bytes: int) -> int:
        """The largest log or journal that the budget allows beside such a file."""
        if self.budget is None:
            return 1 << 62
        return self.budget - file_bytes - self._beside(self.reserve) + self.reserve

    def _beside(self, need: int) -> int:
        """A log of `need` bytes with its shared memory, or a journal."""
        frames = need // (self.sqlite_page + _FRAME_HEADER) + 1
        return need + (_SHARED * ceil(frames / _SHARED_FRAMES) if self.has_log else 0)


def least_budget(file_bytes: int, above: int, cost: int = 0) -> int:
    """The least budget larger than `above`, in small steps, whose file may have so many bytes.

    Beside it lies the log of a change that costs `cost` in the present bank. Pages are larger in a
    larger bank, so some are kept free.
    """
    budget = max(0, above)
    while True:
        budget = (budget // 512 + max(1, budget >> 15)) * 512
        space = Space(budget)
        beside = 2 * cost if space.has_log else cost  # a log takes more than a journal
        if space.file_limit(beside) >= file_bytes * 17 // 16 + 4 * (
            space.page_bytes + space.sqlite_page
        ):
            return budget
