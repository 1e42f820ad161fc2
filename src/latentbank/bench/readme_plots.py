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
    """A plot of the README: the first figure that fits, of the group with most rows of the first of
    `folders` that has one.
    """

    file: str
    folders: tuple[str, ...]
    missing: str
    fits: Callable[[Group, Figure], bool]


PLOTS = (
    Plot(
        "frontier.svg",
        ("frontier", "bench-full"),
        "no two records of the task online-qa have a score and bytes",
        lambda group, figure: group.task == "online-qa" and isinstance(figure.plot, Frontier),
    ),
    Plot(
        "retention.svg",
        ("retention", "bench-full"),
        "no record of the task retention has the curve f1",
        lambda group, figure: (
            group.task == "retention" and isinstance(figure.plot, Curves) and figure.key == "f1"
        ),
    ),
)


def write_plots(results: str | Path, out: str | Path) -> tuple[str, list[str]]:
    """Write the plots that the records of a folder's subfolders have numbers for to `out`.

    Returns (markdown that shows them, with paths as seen from the parent of `out`; a sentence for
    each plot that could not be made, whose file is removed, so that no old one stays). A folder
    that is not there has no records. Raises InputError as `results.load_results`.
    """
    out, results = Path(out), Path(results)
    names = sorted({name for plot in PLOTS for name in plot.folders})
    drawn = {name: _drawn(results / name) for name in names}
    shown, missing = [], []
    for plot in PLOTS:
        path = out / plot.file
        pairs = [pair for name in plot.folders for pair in drawn[name]]
        fitting = [(g, f) for g, f in pairs if plot.fits(g, f)]
        if not fitting:
            path.unlink(missing_ok=True)
            missing.append(f"{path} is not made: {plot.missing}.")
            continue
        group, figure = fitting[0]
        write_atomically(path, standalone(draw(figure, path.stem)))
        about = f"{group.task}, {group.data_name}"
        shown.append(show(figure, f"{out.name}/{plot.file}", about))
    return "\n\n".join(shown), missing


def write_plot(figure: Figure, path: Path) -> str:
    """Write one figure to a file; returns the markdown that shows it as seen from the parent of
    the file's folder.
    """
    write_atomically(path, standalone(draw(figure, path.stem)))
    return show(figure, f"{path.parent.name}/{path.name}")


def show(figure: Figure, path: str, about: str = "") -> str:
    """Markdown: the picture at `path` with its caption."""
    title = f"{figure.title}: {about}." if about else f"{figure.title}."
    return f"![{_plain(figure.title)}]({path})\n\n*{title} {figure.text}*"


def _drawn(folder: Path) -> list[tuple[Group, Figure]]:
    """Every figure of the records of a folder and its subfolders, with its group."""
    found = load_results(folder, nested=True).results if any(folder.rglob("*.json")) else ()
    looks = marks(found)
    return [(group, figure) for group in groups(found) for figure in figures(group, looks)]


def _plain(text: str) -> str:
    """Alternative text without the signs that end it."""
    return text.replace("[", "(").replace("]", ")")
