"""The plots of README.md and docs/: which records each is made from, and how it is drawn.

Knows records and `bench.report.plots`; measures nothing.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentbank.bench.record import Record, read_record, write_atomically
from latentbank.bench.report import plots
from latentbank.bench.report.figures import frontier_figure, method_order
from latentbank.bench.report.results import Group, groups, load_results
from tables.agents import policies_drawing
from tables.evolve import evolve_drawing
from tables.latency import levels
from tables.learning import family, over_seeds, rows_of
from tables.recall import depths_drawing

_AXES = ("rise", "gain_stream")  # of the plot of learning
_FAR = 2.0  # nats a token; what forgot more is in the table alone


@dataclass(frozen=True)
class Picture:
    """A drawing with its title and caption; `about` names task and data."""

    drawing: Any
    title: str
    text: str
    about: str = ""

    def write(self, path: Path) -> None:
        """Writes the drawing as SVG."""
        write_atomically(path, plots.to_svg(self.drawing, path.stem) + "\n")

    def markdown(self, link: str) -> str:
        """The picture at `link` with its caption."""
        about = f": {self.about}" if self.about else ""
        return f"![{self.title}]({link})\n\n*{self.title}{about}. {self.text}*"


def frontier(results: Path) -> Picture | None:
    """F1 over bytes per document, from the first folder that has the task online-qa."""
    group = _group(results, ("frontier", "bench-full"), "online-qa")
    if group is None:
        return None
    figure = frontier_figure(group, _tones(group))
    return figure and Picture(figure.drawing, figure.title, figure.text, _about(group))


def retention(results: Path) -> Picture | None:
    """F1 about the first documents over documents written."""
    group = _group(results, ("retention", "bench-full"), "retention")
    if group is None:
        return None
    lines = [
        (label, r.record.method, r.record.series["f1"])
        for label, r in zip(group.labels, group.results, strict=True)
        if "f1" in r.record.series
    ]
    if not lines:
        return None
    drawing = plots.curves(lines, _tones(group), "documents written", "F1 (%)", direct=True)
    text = "F1 of questions about the first documents while more documents are written."
    return Picture(drawing, "F1 over documents written", text, _about(group))


def latency(results: Path) -> Picture | None:
    """Time to the first token: a line for each level, beside a passage in the prompt."""
    path = results / "speed" / "latency.json"
    if not path.exists():
        return None
    record = read_record(path)
    text = (
        "One question about one document, retrieval included; to the left is better. Hot: the "
        "document's keys and values are cached. Cold: it is decoded from its entry and run first. "
        "Beside each level stand the bytes of a text."
    )
    return Picture(_latency_drawing(record), "Time to the first token", text)


def learning(results: Path) -> Picture | None:
    """What a stream teaches over what it costs: a line for each dial, means over seeds."""
    folder = results / "learning"
    if not any(folder.rglob("*.json")):
        return None
    lines: dict[str, list[tuple[float, float]]] = {}
    for label, members in rows_of(folder).items():
        rise, gain = (statistics.fmean(over_seeds(members, name)) for name in _AXES)
        if rise <= _FAR:
            lines.setdefault(family(label), []).append((rise, gain))
    tones = plots.colours(list(lines))
    with plots.canvas() as figure:
        axes = figure.add_subplot()
        for at, (name, points) in enumerate(lines.items()):
            x, y = zip(*sorted(points, key=lambda point: point[1]), strict=True)
            marker = plots.MARKERS[at % len(plots.MARKERS)]
            axes.plot(x, y, color=tones[name], marker=marker, linewidth=1.4, label=name)
        axes.axvline(0, color=plots.MUTED, linewidth=0.8, zorder=0.5)
        axes.axhline(0, color=plots.MUTED, linewidth=0.8, zorder=0.5)
        axes.set(xlabel="rise of the loss of held-out answers (nats/token)",
                 ylabel="fall of the loss of the stream's answers (nats/token)")  # fmt: skip
        axes.legend(loc="best")
    text = (
        "Up is more learned, to the right is more forgotten. A line joins the settings of a dial. "
        "What rose by more than 2 is left out."
    )
    return Picture(figure, "Learning and forgetting", text, "frontier-learning")


def recall(results: Path) -> Picture | None:
    """Retrieval over the speed of writing, by the layers that are spent."""
    path = results / "recall" / "depths.json"
    if not path.exists():
        return None
    text = (
        "A number is the layer after which writing stops. The dashed line is 95 % of what keys of "
        "full depth reach."
    )
    record = read_record(path)
    return Picture(depths_drawing(record), "Found over the speed of writing", text)


def knowledge(results: Path) -> Picture | None:
    """What KBLaM answers, finds and refuses, by the number of triples."""
    paths = sorted((results / "kblam" / "qa").rglob("kb-qa--kblam--*.json"))
    records = [read_record(path) for path in paths]
    plain = [one for one in records if re.match(r"kb-\d", one.data.name)]
    if not plain:
        return None
    with plots.canvas() as figure:
        axes = figure.add_subplot()
        for at, (name, label) in enumerate(_ASKED.items()):
            points = sorted(
                pair
                for one in plain
                if name in one.series and max(one.series[name].x) >= _USUAL
                for pair in zip(one.series[name].x, one.series[name].y, strict=True)
            )
            x, y = zip(*points, strict=True)
            axes.plot(
                x, y, label=label, linewidth=1.4, color=plots.COLOURS[at], marker=plots.MARKERS[at]
            )
        axes.set(xscale="log", ylim=(0, 103), xlabel="triples", ylabel="percent")
        axes.set_xticks(x, [f"{count:,.0f}" for count in x])
        axes.legend(loc="lower left")
    text = "Held-out entities, 64 questions (10 at 10 triples). The last points are another base."
    return Picture(figure, "A knowledge base in the attention", text)


def agents(results: Path) -> Picture | None:
    """Success of an agent by the policy of a memory with a share of the bytes."""
    path = results / "agents" / "babyai.json"
    drawing = policies_drawing(read_record(path)) if path.exists() else None
    text = (
        "A line is the 95 % interval over held-out tasks. A dashed line is the memory without a "
        "limit of bytes."
    )
    return drawing and Picture(drawing, "Tasks solved at equal bytes", text, "BabyAI")


def evolve(results: Path) -> Picture | None:
    """What each way to search for a policy gained over the default."""
    path = results / "evolve" / "policy" / "evolve.json"
    drawing = evolve_drawing(read_record(path)) if path.exists() else None
    text = "A line is the 95 % interval; all questions about one document are drawn together."
    return drawing and Picture(drawing, "Fading policies over the default", text, "other streams")


_USUAL = 100  # triples of the largest base of a record that is drawn
_ASKED = {
    "first_source_right": "the right triple comes first",
    "exact_match": "answers exactly right",
    "refusal_recall": "unanswerable questions refused",
    "refusal_precision": "refusals that are right",
}


PICTURES: dict[str, Callable[[Path], Picture | None]] = {
    "frontier": frontier,
    "retention": retention,
    "latency": latency,
    "learning": learning,
    "recall": recall,
    "knowledge": knowledge,
    "agents": agents,
    "evolve": evolve,
}
MISSING = {
    "frontier": "no two records of the task online-qa have a score and bytes",
    "retention": "no record of the task retention has the curve f1",
    "latency": "results/speed/latency.json is missing",
    "learning": "no record of frontier-learning in results/learning",
    "recall": "results/recall/depths.json is missing",
    "knowledge": "no record of kblam in results/kblam/qa",
    "evolve": "results/evolve/policy/evolve.json is missing",
    "agents": "results/agents/babyai.json has no row with a share of the bytes",
}


def _group(results: Path, folders: tuple[str, ...], task: str) -> Group | None:
    """The largest group of a task in the first of the folders that has one."""
    for folder in folders:
        if any((results / folder).rglob("*.json")):
            found = groups(load_results(results / folder, nested=True).results)
            for group in found:
                if group.task == task and group.results:
                    return group
    return None


def _tones(group: Group) -> dict[str, str]:
    return plots.colours(method_order(group.results))


def _about(group: Group) -> str:
    return f"{group.task}, {group.data_name}"


def _latency_drawing(record: Record) -> Any:
    values = {name: metric.value for name, metric in record.metrics.items()}
    names = levels(record)
    other = values[f"{names[0]}: rag"]
    hot, cold, grey = plots.COLOURS[0], plots.COLOURS[1], plots.MUTED
    with plots.canvas(8.6, 0.4 * len(names) + 1.2) as figure:
        axes = figure.add_subplot()
        axes.set_xscale("log")
        for at, name in enumerate(names):
            ends = [values[f"{name}: hot"], values[f"{name}: cold"]]
            axes.hlines(at, *ends, color=plots.GRID, linewidth=4, zorder=0.9)
            for kind, x, tone in (("hot", ends[0], hot), ("cold", ends[1], cold)):
                side, shift = ("right", 10) if kind == "hot" else ("left", -10)
                axes.plot(x, at, "o", color=tone, markersize=8, markeredgecolor="white")
                axes.annotate(
                    f"{'' if at else kind} {_duration(x)}", (x, at), (shift, 7), color=tone,
                    textcoords="offset points", ha=side, va="bottom", fontsize=9, bbox=plots.PAPER,
                )  # fmt: skip
        axes.axvline(other, color=grey, linewidth=1.3, linestyle=plots.DASHES[1], zorder=0.8)
        axes.annotate(
            f"passage in the prompt, {_duration(other)}", (other, 1.0), (0, 4), color=grey,
            xycoords=("data", "axes fraction"), textcoords="offset points", ha="center",
            va="bottom",
        )  # fmt: skip
        axes.set_xlim(left=0.65 * min(values[f"{name}: hot"] for name in names))
        labels = [f"{name}, {values[f'{name}: bytes']:,.0f} B" for name in names]
        axes.set_yticks(range(len(names)), labels)
        axes.set_ylim(len(names) - 0.5, -0.7)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        plots.millisecond_axis(axes)
    return figure


def _duration(milliseconds: float) -> str:
    if milliseconds >= 10_000:
        return f"{milliseconds / 1000:.0f} s"
    return f"{milliseconds:,.0f} ms"
