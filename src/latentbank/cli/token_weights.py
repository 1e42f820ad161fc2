"""`latentbank inspect BANK --token-weights FILE`: how much each token of a text is learned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from latentbank.cli.common import console, notice, print_json, quiet_libraries
from latentbank.errors import InputError

SHADES = ("#ffffff", "#fff3d6", "#ffe0a3", "#ffc670", "#ffa53d", "#f07f13")  # light to dark


def show_weights(bank: str, document: str, json_output: bool) -> None:
    """Prints the text with its tokens coloured by weight, or as JSON.

    Raises InputError where there is no such file, or the bank's method weighs no tokens.
    """
    path = Path(document)
    if not path.is_file():
        raise InputError(f"There is no file {document}; name a text file whose tokens to weigh.")
    quiet_libraries()
    from latentbank.documents.readers import read_documents
    from latentbank.learning import TokenWeighting
    from latentbank.model import MemoryModel

    text = "\n\n".join(one.text for one in read_documents([str(path)]))
    with MemoryModel.open(bank, read_only=True, progress=notice) as model:
        method = model.method
        if not isinstance(method, TokenWeighting):
            raise InputError(
                f"Method '{method.name}' weighs no tokens; methods that learn in the weights do."
            )
        [ids] = model.backbone.encode([text])
        ids = ids[: method.chunk_tokens + 1]
        weights = [float(one) for one in method.token_weights(ids, text)]
        pieces = _pieces(model.backbone.tokenizer, ids[1:])
    if json_output:
        rows = [{"token": t, "weight": w} for t, w in zip(pieces, weights, strict=True)]
        print_json({"bank": bank, "document": document, "token_weights": rows})
        return
    _print(pieces, weights)


def _pieces(tokenizer: object, ids: Sequence[int]) -> list[str]:
    """The text of each token; the bytes of one character count for its last token."""
    pieces: list[str] = []
    shown = ""
    for at in range(len(ids)):
        text: str = tokenizer.decode(list(ids[: at + 1]))  # type: ignore[attr-defined]
        whole = text.rstrip("\ufffd")
        pieces.append(whole[len(shown) :] if len(whole) > len(shown) else "")
        shown = whole if len(whole) > len(shown) else shown
    return pieces


def _print(pieces: Sequence[str], weights: Sequence[float]) -> None:
    from rich.text import Text

    most = max(weights, default=0.0) or 1.0
    line = Text()
    for piece, weight in zip(pieces, weights, strict=True):
        shade = SHADES[min(len(SHADES) - 1, int(len(SHADES) * weight / most))]
        line.append(piece, style=f"#1c2127 on {shade}")
    screen = console()
    screen.print(line)
    screen.print(f"weights from {min(weights, default=0.0):.3g} to {most:.3g}; darker is more")
