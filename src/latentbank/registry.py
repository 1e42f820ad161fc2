"""Names of things that a user chooses: methods, tasks, policies, codecs.

One registry holds one kind. It imports the modules that register themselves only when a name is
asked for, so that listing commands stay quick. Knows names and modules; knows no kind.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, cast

from latentbank.errors import unknown

T = TypeVar("T")
C = TypeVar("C", bound=type[Any])


class Registry(Generic[T]):
    """Maps names of one `kind` to objects that register themselves.

    `package`: its modules register on import; a module that has the name asked for is tried first.
    `entry_points`: a group in which other packages name the modules that register theirs.
    """

    def __init__(
        self, kind: str, package: str | None = None, entry_points: str | None = None
    ) -> None:
        self.kind = kind
        self._package, self._group = package, entry_points
        self._items: dict[str, T] = {}
        self._complete = package is None and entry_points is None

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that makes an object known as `name`; a later one replaces an earlier one."""

        def decorate(item: T) -> T:
            self._items[name] = item
            return item

        return decorate

    def forget(self, name: str) -> None:
        """Makes a name unknown again; an unknown one is ignored."""
        self._items.pop(name, None)

    def register_class(self, name: str) -> Callable[[C], C]:
        """As `register`, for classes; the attribute `name` of the class is set."""

        def decorate(item: C) -> C:
            item.name = name
            self.register(name)(cast(T, item))
            return item

        return decorate

    def get(self, name: str) -> T:
        """The object called `name`. Raises UnknownNameError that lists the known names."""
        if name not in self._items:
            self._import_module_named(name)
        if name not in self._items:
            self._import_all()
        if name not in self._items:
            raise unknown(self.kind, name, self.names())
        return self._items[name]

    def names(self) -> list[str]:
        """Every known name, sorted."""
        self._import_all()
        return sorted(self._items)

    def items(self) -> dict[str, T]:
        """Every known object by name, sorted by name."""
        return {name: self._items[name] for name in self.names()}

    def __contains__(self, name: object) -> bool:
        if isinstance(name, str) and name not in self._items:
            self._import_module_named(name)
        return name in self._items or name in self.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _import_module_named(self, name: str) -> None:
        if self._package is None or not name.isidentifier():
            return
        module = f"{self._package}.{name}"
        if importlib.util.find_spec(module) is not None:
            importlib.import_module(module)

    def _import_all(self) -> None:
        if self._complete:
            return
        self._complete = True
        if self._package is not None:
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self._package}.{module.name}")
        if self._group is not None:
            for point in importlib.metadata.entry_points(group=self._group):
                if point.name not in self._items:
                    point.load()
