"""`Write`: one write to a bank, its transactions, and room for them in the log and the file.

Knows the budget, the log and the marks that make several transactions one write; nothing about what
entries mean. Without a budget a write is one transaction. With one it is split where the log would
outgrow its reserve. Each part is durable before the next begins, and no part leaves a document
half-stored. A write that carries state counts as a whole or not at all; see `begin_pending`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from latentbank.bank.space import least_budget
from latentbank.bank.store.directory import Changes
from latentbank.bank.store.items import BANK
from latentbank.bank.store.page_writer import PageWriter
from latentbank.bank.store.session import DELETING, MEMORY, PENDING, Session
from latentbank.bank.store.tombstones import TOMBSTONE_BYTES, Tombstones, pack_tombstones
from latentbank.errors import BankError, BudgetError

__all__ = ["Write", "writing"]

_TRIES = 50  # to begin behind another process that writes without pause
_NO_LIMIT = 1 << 61
_LEAST_PAGES = 7  # of the file of a bank without documents and large items
_JOINED_PAGES = 8  # small pages that are made one at a time


class Write:
    """The state of one write.

    `reserve` begins a group of changes that belong together. `reserve` and `commit` end
    transactions; the directory follows them.

    Attributes:
        pages: the pages of the present transaction.
        turns: transactions committed before the present one.
        strangers: how often another process had written before one of them.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.pages = PageWriter(session)
        self.turns = self.strangers = 0
        self._grown = 0  # bytes that the log may grow to in this transaction, if not the reserve
        self._spent = self._room = 0
        self._pending: int | None = None  # the order from which on documents do not count yet

    # ------------------------------------------------------------------------ transactions

    def begin(self, cost: int = 0) -> None:
        """Start a transaction that may cost `cost` bytes of log, and at least the reserve."""
        session = self.session
        for _ in range(_TRIES):
            session.begin(write=True)
            try:
                version = session.version
                session.sync()
                undisturbed = version is not None and version == session.version
                self.strangers += self.turns > 0 and version != session.version
                if self._begins(cost, undisturbed):
                    break
            except BaseException:
                session.rollback()
                raise
            session.rollback()
            session.empty_log(cost > session.settings.space.reserve)
        else:
            raise BankError(f"Bank {session.name}: other processes write without pause; try again.")
        if self._pending is not None and self.strangers:
            raise BankError(
                f"Bank {session.name}: another process wrote in the middle of this write; nothing "
                "of this write was kept. Read the bank anew and write again."
            )
        self._grown = cost
        self._spent = 0 if self._pending is None else self._mark_cost()
        self.pages.start()

    def _begins(self, cost: int, undisturbed: bool) -> bool:
        """Whether the log has room for `cost` more bytes; sets the room of this transaction."""
        session, space = self.session, self.session.settings.space
        if not space.limits_log:
            self._room = _NO_LIMIT
            return True
        limit = min(max(space.reserve, cost), space.log_limit(session.size_bytes()))
        if not space.has_log or session.name == MEMORY:  # each transaction has its own journal
            self._room = limit
            return True
        self._room = limit - session.log_bytes
        if undisturbed and cost <= self._room:
            return True
        if session.log_bytes == 0:  # just emptied, and nobody wrote in between
            self._room = limit
            return True
        return False

    def commit(self) -> None:
        """Make the transaction durable and tell the directory.

        Raises `BudgetError` if the file would outgrow the budget.
        """
        session = self.session
        if self.trim() > 0 and session.size_bytes() > session.settings.space.hard_limit():
            raise BudgetError(
                f"Bank {session.name}: this change and its log do not fit into the budget of "
                f"{session.settings.budget_bytes}; change less at a time."
            )
        with session.committing():
            session.directory.apply(self.pages.changes)
            session.log_bytes = min(session.log_bytes + self._spent, _NO_LIMIT)

    def turn(self, cost: int = 0) -> None:
        """Commit, and begin the next transaction of this write."""
        if self._pending is not None and self.pages.changes.orders > self._pending:
            self.session.items.put_json(BANK, PENDING, self._pending)
        self.commit()
        self.turns += 1
        self.begin(cost)

    def reserve(self, cost: int) -> None:
        """Have room in the log for the next `cost` bytes, in a new transaction if need be."""
        if self._spent + cost > self._room:
            self.turn(cost)
            space = self.session.settings.space
            if cost > space.reserve and self.session.size_bytes() > self.file_limit():
                raise BudgetError(
                    f"Bank {self.session.name}: a change of {cost} bytes at once does not fit into "
                    f"its budget of {space.budget}; write less at a time or make a larger bank."
                )
        self._spent += cost

    def refund(self, cost: int) -> None:
        """Give back what was reserved and not needed."""
        self._spent -= cost

    def as_one(self) -> None:
        """Keep what follows in one transaction, however large its log or journal becomes."""
        self._room = _NO_LIMIT

    def save(self) -> Changes:
        """Mark the present state within the transaction; `restore` goes back to it."""
        self.session.connection.execute("SAVEPOINT part")
        return self.pages.changes.copy()

    def restore(self, changes: Changes) -> None:
        """Take back everything since `save` returned `changes`."""
        self.session.connection.execute("ROLLBACK TO part")
        self.pages.changes = changes

    # ---------------------------------------------------------------- one write, many parts

    def begin_pending(self) -> None:
        """From here on new documents count only once `end_pending` is committed.

        If the write needs more than one transaction, a mark in the file says from which place in
        the order of writing on documents do not count. Readers pass them over. If this process
        dies, the next one that writes removes them first.
        """
        self._pending = self.pages.changes.orders
        self.reserve(self._mark_cost())

    def _mark_cost(self) -> int:
        """Log bytes of writing the mark or of removing it."""
        return self.cost(16, items=1) - self.cost(0)

    def end_pending(self) -> None:
        """With this transaction all new documents count. Does nothing without `begin_pending`."""
        if self._pending is not None:
            self.session.items.drop(BANK, PENDING)
            self._pending = None

    @property
    def kept(self) -> str:
        """What is in the bank of this write if it fails now, for the sentence of an error."""
        if self.turns and self._pending is None:
            return "earlier parts of this write were kept"
        return "nothing of this write was kept"

    def decide_deletion(self, tombstones: Tombstones) -> None:
        """Delete for all readers in one transaction, then carry it out in as many as it takes."""
        self.session.items.put(BANK, DELETING, pack_tombstones(tombstones))
        self.turn()
        self.session.tombstones = tombstones
        self.finish_deletion()

    def finish_deletion(self) -> None:
        """Rewrite the pages whose entries have tombstones, then drop the tombstones."""
        session = self.session
        tombstones = session.tombstones
        for seq, (hash, positions) in sorted(tombstones.items()):
            page = session.pages.find(seq)
            if page is None or page.hash[:8] != hash[:8]:
                continue
            strangers = self.strangers
            rewritten = 2 if len(positions) < page.count else 1
            self.reserve(self.cost(rewritten * page.size_bytes, pages=1))
            if strangers != self.strangers:  # another process may have been here
                page = session.pages.find(seq)
            if page is not None and page.hash[:8] == hash[:8]:
                page.check()
                numbers = page.id_keys.tolist()
                self.pages.move((numbers[at] for at in positions if at < page.count), 0)
                self.pages.cut(page, positions)
        self.reserve(self.cost(len(tombstones) * TOMBSTONE_BYTES, items=2))
        session.items.drop(BANK, DELETING)
        session.items.drop(BANK, PENDING)
        session.tombstones = {}

    # -------------------------------------------------------------------------------- space

    def file_limit(self) -> int:
        """The largest file that the budget allows beside the present log."""
        largest = self.cost(self.session.directory.largest_bytes, pages=1)  # what deleting it takes
        return self.session.settings.space.file_limit(max(self._grown, largest))

    def free_bytes(self) -> int:
        """Bytes of the file, free or still to grow, that new content may take."""
        space = self.session.settings.space  # its margin is for what fading itself has to write
        unused = self.session.unused_pages() * space.sqlite_page - space.margin_bytes
        return self.file_limit() - self.session.size_bytes() + unused

    def empty_bytes(self) -> int:
        """Bytes that the file would take without its documents, margin included; an upper bound."""
        space = self.session.settings.space
        items = self.session.items.file_bytes(space.sqlite_page)
        pointers = self.file_limit() // 100  # SQLite's map of a file that has once been full
        return items + pointers + _LEAST_PAGES * space.sqlite_page + space.margin_bytes

    def fill(self) -> None:
        """Let the file grow to its limit. A full bank has one size, whatever was written."""
        space = self.session.settings.space
        gap = self.file_limit() - self.session.size_bytes()
        if gap >= space.sqlite_page and space.budget is not None:
            gap += 2 * space.sqlite_page
            self.reserve(self.cost(gap, items=1))
            self.session.items.fill(gap)
            self.trim()

    def trim(self) -> int:
        """Give free pages back while the file is over its limit; returns the bytes still over."""
        over = self.session.size_bytes() - self.file_limit()
        if over > 0:
            self.session.give_back(-(-over // self.session.settings.space.sqlite_page))
        return self.session.size_bytes() - self.file_limit()

    def check_size(self) -> None:
        """Raise `BudgetError` if the file is now larger than its budget allows."""
        if self.trim() > 0:
            raise self.too_large(self.session.size_bytes())

    def too_large(self, size: int) -> BudgetError:
        """The error for a bank whose file would take `size` bytes."""
        budget = self.session.settings.budget_bytes or 0
        cost = max(self._grown, self.cost(max(0, size - self.session.size_bytes()), 1, 1))
        return BudgetError(
            f"Bank {self.session.name}: this needs a file of {size} bytes, and its log beside it, "
            f"more than the budget of {budget} allows; {self.kept}. Delete documents, or make the "
            f"budget at least {least_budget(size, budget, cost)}."
        )

    def cost(self, changed_bytes: int, pages: int = 0, items: int = 0) -> int:
        """Log bytes of a change; see `Space.cost`."""
        return self.session.settings.space.cost(changed_bytes, pages, items)

    def item_needs(self, kind: str, items: Mapping[str, bytes]) -> tuple[int, int]:
        """Bytes that items of a kind add to the file, and to the log."""
        if not items:
            return 0, 0
        old, new = self.session.items.stored_bytes(kind, items), sum(map(len, items.values()))
        added = 2 * self.session.settings.space.sqlite_page * len(items) if new > old else 0
        return max(0, new - old) + added, self.cost(new + old, items=len(items)) - self.cost(0)

    # ------------------------------------------------------------------------- groups of pages

    def join_small_pages(self) -> None:
        """Make one page of many small ones at the end of a slot, if there are many."""
        for slot in self.pages.changes.tails.slots():
            small = self.pages.changes.tails.pages(slot)
            size = sum(size for _, size in small)
            if len(small) <= _JOINED_PAGES and size < self.pages.space.page_bytes:
                continue
            first = small[:_JOINED_PAGES]
            cost = self.cost(2 * sum(size for _, size in first), pages=len(first))
            if self._room < _NO_LIMIT and cost > self.session.settings.space.reserve:
                self.pages.changes.tails.close_first(slot)
                continue
            self.reserve(cost)
            numbers = [seq for seq, _ in self.pages.changes.tails.pages(slot)[:_JOINED_PAGES]]
            if len(numbers) >= 2 and not self.pages.join(slot, numbers):
                self.pages.changes.tails.close_first(slot)


@contextmanager
def writing(session: Session) -> Iterator[Write]:
    """A write, committed at the end of the block, or rolled back to its last part."""
    with session.guard():
        work = Write(session)
        work.begin()
        try:
            if session.tombstones:
                work.finish_deletion()
            yield work
            work.commit()
        except BaseException:
            session.invalidate()  # whatever was rolled back is read anew
            session.rollback()
            raise
