"""What an answer attended to, layer by layer: heat bars in the terminal, a PNG or SVG file.

Knows what a method says about its attention; knows no method.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentbank.cli.common import console
from latentbank.errors import InputError

if TYPE_CHECKING:
    from latentbank.model import MemoryModel

__all__ = ["attended", "check_explainable", "draw_attended", "print_attended"]

ROWS, DRAWN = 5, 20  # triples in the terminal, and in a picture
BARS = " ▁▂▃▄▅▆▇█"
NOTHING = "(no triple)"
PICTURES = (".png", ".svg")


def check_explainable(model: MemoryModel, picture: str | None) -> None:
    """Raises InputError if the method keeps no triples, or `picture` is no PNG or SVG."""
    from latentbank.capabilities import Knowledge

    if not isinstance(model.method, Knowledge):
        raise InputError(
            f"--explain draws attention to triples, and {model.method.name} attends to none; "
            "write the bank with a method that keeps triples."
        )
    if picture is not None and Path(picture).suffix.lower() not in PICTURES:
        raise InputError(f"A picture is a {' or '.join(PICTURES)} file, got {picture}.")


def attended(model: MemoryModel, question: int = 0) -> dict[str, Any] | None:
    """Shares of the attention by layer, as JSON values; None where nothing was attended.

    `layers` [L]; `triples`: those with the largest mean share, with their shares [L]; `none` [L].
    """
    from latentbank.capabilities import Knowledge

    method = model.method
    found = method.attention() if isinstance(method, Knowledge) else None
    if found is None or not isinstance(method, Knowledge) or question >= len(found.shares):
        return None
    shares = found.shares[question]  # (L, M)
    best = shares.mean(0).topk(min(DRAWN, shares.shape[1])).indices.tolist()
    rows = []
    for i in best:
        entity, property, value = method.fact(found.ids[i]) or ("", "", "")
        rows.append({
            "id": found.ids[i], "entity": entity, "property": property, "value": value,
            "shares": [round(share, 4) for share in shares[:, i].tolist()],
        })  # fmt: skip
    none = [round(share, 4) for share in found.none[question].tolist()]
    return {"layers": list(found.layers), "triples": rows, "none": none}


def print_attended(found: dict[str, Any]) -> None:
    """A line for each triple, with a bar for each layer."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title="attention by layer", title_justify="left")
    table.add_column("triple", overflow="ellipsis", no_wrap=True, max_width=52)
    for layer in found["layers"]:
        table.add_column(str(layer), justify="right", no_wrap=True)
    table.add_column("mean", justify="right")
    for label, shares in _lines(found, ROWS):
        cells = [f"{_bar(share)} {100 * share:3.0f}" for share in shares]
        table.add_row(label, *cells, f"{100 * sum(shares) / max(1, len(shares)):.0f} %")
    console().print(table)


def draw_attended(found: dict[str, Any], question: str, answer: str, path: str) -> None:
    """Writes a picture: triples by layers, dark where the share is high.

    Raises InputError if matplotlib is missing or the file cannot be written.
    """
    try:
        from latentbank.bench.report.plots import canvas, to_svg

        lines = _lines(found, DRAWN)
        with canvas(3.4 + 0.55 * len(found["layers"]) + 2.6, 1.4 + 0.28 * len(lines)) as figure:
            axes = figure.add_subplot()
            shares = [row for _, row in lines]
            image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
            axes.set_yticks(range(len(lines)), [label for label, _ in lines], fontsize=7)
            axes.set_xticks(range(len(found["layers"])), [str(i) for i in found["layers"]])
            axes.set_xlabel("layer")
            axes.set_title(f"{question}\n→ {answer}", fontsize=8)
            axes.grid(visible=False)
            figure.colorbar(image, label="share of the attention")
            if Path(path).suffix.lower() == ".svg":
                Path(path).write_text(to_svg(figure, "attention") + "\n", encoding="utf-8")
            else:
                figure.savefig(path, dpi=150)
    except ImportError as error:
        raise InputError("A picture needs matplotlib: pip install 'latentbank[bench]'.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error


def _lines(found: dict[str, Any], most: int) -> list[tuple[str, list[float]]]:
    """(label, shares by layer) of the triples, and of no triple."""
    rows = [(_label(row), row["shares"]) for row in found["triples"][:most]]
    return [*rows, (NOTHING, found["none"])]


def _label(row: dict[str, Any]) -> str:
    if not row["entity"]:
        return str(row["value"])[:60]
    return f"the {row['property']} of {row['entity']} = {row['value']}"[:60]


def _bar(share: float) -> str:
    return BARS[min(len(BARS) - 1, round(share * (len(BARS) - 1)))]
