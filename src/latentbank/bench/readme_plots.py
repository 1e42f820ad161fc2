"""The plots of the README and of docs/benchmarks.md, as SVG files for light and dark mode.

Knows records and figures; `report` puts the tables beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from latentbank.bench.figure import Curves, Figure, Frontier
from latentbank.bench.figures import figures, marks
from latentbank.bench.plots import draw
from latentbank.bench.record import write_atomically
from latentbank.bench.results import Group, groups, load_results
from latentbank.bench.svg import standalone


@dataclass(frozen=True)
class Plot:
    """A plot of the README: the first figure that fits, of the group with most rows."""

    file: str
    missing: str
    fits: Callable[[Group, Figure], bool]


PLOTS = (
    Plot(
        "frontier.svg",
        "no two records of the task online-qa have a score and bytes",
        lambda group, figure: group.task == "online-qa" and isinstance(figure.plot, Frontier),
    ),
    Plot(
        "retention.svg",
        "no record of the task retention has the curve f1",
        lambda group, figure: (
            group.task == "retention" and isinstance(figure.plot, Curves) and figure.key == "f1"
        ),
    ),
)


def write_plots(results: str | Path, out: str | Path) -> tuple[str, list[str]]:
    """Write the plots that the records of a folder (and its subfolders) have numbers for to `out`.

    Returns (markdown that shows them, with paths as seen from the parent of `out`; a sentence for
    each plot that could not be made, whose file is removed, so that no old one stays). A folder
    that is not there has no records. Raises InputError as `results.load_results`.
    """
    out, results = Path(out), Path(results)
    found = load_results(results, nested=True).results if any(results.rglob("*.json")) else ()
    looks = marks(found)
    parts = groups(found)
    drawn = [(group, figure) for group in parts for figure in figures(group, looks)]
    shown, missing = [], []
    for plot in PLOTS:
        path = out / plot.file
        fitting = [(g, f) for g, f in drawn if plot.fits(g, f)]
        if not fitting:
            path.unlink(missing_ok=True)
            missing.append(f"{path} is not made: {plot.missing}.")
            continue
        group, figure = fitting[0]
        write_atomically(path, standalone(draw(figure, path.stem)))
        caption = f"{figure.title}: {group.task}, {group.data_name}. {figure.text}"
        shown.append(f"![{_plain(figure.title)}]({out.name}/{plot.file})\n\n*{caption}*")
    return "\n\n".join(shown), missing


def _plain(text: str) -> str:
    """Alternative text without the signs that end it."""
    return text.replace("[", "(").replace("]", ")")
