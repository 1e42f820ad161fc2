"""The exceptions that latentbank raises on purpose; each carries one clear sentence.

The command line prints the sentence and exits with status 2. Knows nothing about what raises them.
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "AdapterError",
    "BankError",
    "BudgetError",
    "EndpointError",
    "FingerprintError",
    "InputError",
    "LatentbankError",
    "StepWarning",
    "UnknownNameError",
    "unknown",
]


class LatentbankError(Exception):
    """Base of every error that latentbank raises on purpose."""


class InputError(LatentbankError):
    """A document, file, array or argument cannot be used as it is."""


class BankError(LatentbankError):
    """A bank cannot be opened, read or written, or its bytes are damaged."""


class DamageWarning(UserWarning):
    """Something of a bank cannot be read and is left out; the rest works."""


class StepWarning(UserWarning):
    """A step of learning was skipped, because its loss or its gradient was not finite."""


class BudgetError(BankError):
    """A change does not fit into the bank's budget; the bank is unchanged."""


class FingerprintError(BankError):
    """A bank was written by another method, adapter, backbone or tokenizer."""


class EndpointError(LatentbankError):
    """A server that answers for a model is down, slow, refuses, or answers nonsense."""


class AdapterError(LatentbankError):
    """An adapter's files are missing, damaged or made for another backbone."""


class UnknownNameError(LatentbankError):
    """A method, model, codec or other name is unknown; the sentence lists the known names."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for an unknown `name` of a `kind` such as "method"; the caller raises it.

    The sentence lists the known names in alphabetical order. If one of them is spelled like `name`,
    it is suggested.
    """
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    listing = ", ".join(names) if names else "none"
    return UnknownNameError(f"Unknown {kind} {name!r}.{hint} Known: {listing}.")
