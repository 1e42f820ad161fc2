"""matplotlib figures as SVG that takes its colours and font from the page around it.

Knows colours and SVG text; nothing about what is drawn.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

INK, MUTED, GRID, SURFACE = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
COLOURS = 12
_NAMES = {INK: "ink", MUTED: "muted", GRID: "grid", SURFACE: "surface"}

# Okabe and Ito's palette (2008), which the colour-blind can tell apart: darker shades on white
# (at least 3:1 against it, WCAG 1.4.11), its own or lighter ones on black.
PALETTE = (
    ("#0072b2", "#5ab4e5"),  # blue
    ("#c24a00", "#f08a4b"),  # vermilion
    ("#008060", "#2fc79b"),  # bluish green
    ("#b0538f", "#dc9ac0"),  # reddish purple
    ("#9a6700", "#e69f00"),  # orange
    ("#2f86b8", "#9fd4f5"),  # sky blue
    ("#6b6f00", "#e6dc4a"),  # yellow
    ("#5b6470", "#a7b0bc"),  # grey, in place of black
    ("#8b1e3f", "#f28aa5"),  # four more for long tables; shape and dashes tell them apart, too
    ("#4a3fb5", "#a79bff"),
    ("#6d4c2f", "#c8a17c"),
    ("#00606b", "#63cdd6"),
)
LIGHT = {"ink": "#1c2127", "muted": "#59636e", "grid": "#e2e6ea", "surface": "#ffffff"}
DARK = {"ink": "#e8eaed", "muted": "#a3acb6", "grid": "#333a42", "surface": "#15181c"}


def colour(index: int) -> str:
    """The colour that stands for series `index`; after `COLOURS` they come again."""
    return f"#0a0c{index % COLOURS:02x}"


def variables(dark: bool) -> str:
    """CSS declarations of every colour, for a light or a dark page."""
    found = [f"--{name}: {value};" for name, value in (DARK if dark else LIGHT).items()]
    found += [f"--c{i}: {pair[dark]};" for i, pair in enumerate(PALETTE)]
    return " ".join(found)


@contextmanager
def style(width: float, height: float, key: str) -> Iterator[Any]:
    """A figure of `width` × `height` pixels; what is drawn within the block uses the page's style.

    `key` makes the ids inside the SVG, the same for the same figure.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_settings(key)):
        yield Figure(figsize=(width / 72, height / 72), dpi=72)


def _settings(key: str) -> Any:
    """matplotlib's settings; some are read when a figure is made, others when it is saved."""
    return {
        "svg.fonttype": "none", "svg.hashsalt": key, "font.family": ["DejaVu Sans"],
        "font.size": 11, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED,
        "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK,
        "ytick.labelcolor": INK, "axes.facecolor": "none", "figure.facecolor": "none",
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
        "grid.color": GRID, "grid.linewidth": 1.0, "axes.axisbelow": True,
        "axes.formatter.use_mathtext": False, "axes.unicode_minus": True,
        "text.parse_math": False, "legend.frameon": False, "path.simplify": True,
    }  # fmt: skip


def to_svg(figure: Any, key: str, alt: str, kind: str = "") -> str:
    """An <svg> element to be put into a page that declares `variables`; `kind` is its class."""
    import matplotlib

    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with matplotlib.rc_context(_settings(key)):
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"\s*\n\s*", " ", text)
    text = re.sub(r" ?font-family: [^;\"]*;?", "", text)
    for found, name in _NAMES.items():
        text = text.replace(found, f"var(--{name})")
    text = re.sub(r"#0a0c(0[0-9a-f])", lambda m: f"var(--c{int(m[1], 16)})", text)
    text = _own_ids(text, key)
    box = re.search(r'viewBox="([^"]*)"', text)
    head = f'<svg class="{kind}" viewBox="{box[1] if box else ""}" role="img"'
    return re.sub(r"^<svg[^>]*>", f'{head} aria-label="{escape(alt)}">', text).strip()


def standalone(svg: str) -> str:
    """A file of its own: with the colours for light and dark, and the reader's sans-serif font."""
    css = (
        f"svg {{ {variables(False)} font-family: system-ui, sans-serif; }} "
        "* { stroke-linejoin: round; } "
        "text { paint-order: stroke; stroke: var(--surface); stroke-width: 3px; } "
        f"@media (prefers-color-scheme: dark) {{ svg {{ {variables(True)} }} }}"
    )
    box = re.search(r'viewBox="\S+ \S+ (\S+) (\S+)"', svg)
    size = f' width="{box[1]}" height="{box[2]}"' if box else ""
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    found = re.sub(r"^<svg class=\"[^\"]*\"([^>]*)>", rf"<svg {names}{size}\1>", svg)
    head, body = found.split(">", 1)
    return f"{head}><style>{css}</style>{body}\n"


def _own_ids(text: str, key: str) -> str:
    """Ids that are used get `key` before them, the others go: a page holds many figures."""
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{key}-", text)

    def rename(match: re.Match[str]) -> str:
        return f' id="{key}-{match[1]}"' if match[1] in used else ""

    return re.sub(r' id="([^"]*)"', rename, text)
