"""What a bank does for the word index beside it: deleted documents leave it first.

The index is purged before the bank deletes. If the process dies in between, the documents are still
in the bank, and the index takes them in again. Knows a session and numbers; knows no texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np

from latentbank.bank.store.session import MEMORY, Session
from latentbank.bank.words.files import DamagedFile
from latentbank.bank.words.folder import index_folder
from latentbank.bank.words.index import WordIndex
from latentbank.bank.words.lists import Numbers
from latentbank.errors import BankError

__all__ = ["Upkeep"]


class Upkeep:
    """The index of one bank, where there is one.

    Attributes:
        index: the index that a method has opened, or None.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._later = False
        self.index: WordIndex | None = None

    @contextmanager
    def deleting(self, ids: Sequence[str]) -> Iterator[None]:
        """The documents are deleted from the bank in this block; before it they leave the index."""
        session, index = self._session, self._there()
        if index is None or session.read_only:
            yield
            return
        with session.reading():
            known = {session.number(id): session.locate(id) for id in ids}
        numbers = np.array([number for number in known if number is not None], np.uint64)
        pages = {seq for seq in known.values() if seq is not None}
        hashes = {seq: session.directory.hashes.get(seq) for seq in pages}
        current = {seq for seq in pages if index.state.marks.get(seq) == hashes[seq]}
        others = session.stamp()[0]
        self._purge(index, numbers, pages, self._later)
        yield
        if session.stamp()[0] == others:  # what changed on these pages is what was deleted
            for seq in current - index.state.marks.keys():
                hash = session.directory.hashes.get(seq)
                if hash is not None and seq not in session.tombstones:
                    index.state.marks[seq] = hash

    @contextmanager
    def deleting_together(self) -> Iterator[None]:
        """What is deleted within the block leaves the index's files at its end."""
        if self._later:
            yield
            return
        self._later = True
        try:
            yield
        finally:
            self._later = False
            index = self.index
            if index is not None and index.state.owed:
                self._purge(index, np.empty(0, np.uint64), ())

    def _there(self) -> WordIndex | None:
        """The index that is open, or the one in the bank's folder."""
        name = self._session.name
        if self.index is None and name != MEMORY and index_folder(name).is_dir():
            self.index = WordIndex(name, "", 1 << 62)
        return self.index

    def _purge(
        self,
        index: WordIndex,
        numbers: Numbers,
        pages: Sequence[int] | set[int],
        later: bool = False,
    ) -> None:
        """Purges the index. One that cannot be purged is removed; it is built anew when needed."""
        try:
            index.purge(numbers, pages, later)
        except (OSError, DamagedFile):
            try:
                index.clear()
            except OSError as error:
                raise BankError(
                    f"The word index {index_folder(self._session.name)} cannot be purged "
                    f"({error.strerror or error}), so nothing was deleted; remove that folder."
                ) from error

    def close(self) -> None:
        """Writes what the index has in memory, if the bank is open for writing."""
        if self.index is not None and not self._session.read_only:
            with suppress(OSError, DamagedFile):  # it can be built anew
                self.index.keep(force=True)
