"""What a confidence is worth: the probability that an answer is right, and where to abstain.

Fitted on held-out questions (`evaluate.calibration`) and kept beside the adapter as JSON. Knows
numbers; knows no method and no model.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from latentbank.errors import AdapterError, InputError

__all__ = ["FILE", "Calibration", "read_calibration"]

FILE = "calibration.json"
FORMAT = 1


@dataclass(frozen=True)
class Calibration:
    """Two curves over an answer's confidence.

    Attributes:
        confidence, probability: knots of a curve that does not fall: how often an answer of that
            confidence is right (isotonic regression).
        rates, thresholds: at a confidence of at least `thresholds[i]` the share of unanswerable
            questions that get an answer is `rates[i]`. Rates rise, thresholds fall.
        fitted_on: data, questions, seed, command and code of the fit.
        quality: of the answers that it was fitted on; other qualities are sure in another way.
        unanswerable: questions of the fit that no document answers; 0: not known.
    """

    confidence: tuple[float, ...]
    probability: tuple[float, ...]
    rates: tuple[float, ...]
    thresholds: tuple[float, ...]
    fitted_on: Mapping[str, Any] = field(default_factory=dict, hash=False)
    quality: str = "best"
    unanswerable: int = 0

    def of(self, confidence: float) -> float:
        """The probability that an answer of this confidence is right; linear between knots."""
        x, y = self.confidence, self.probability
        at = bisect_right(x, confidence)
        if at == 0 or at == len(x):
            return y[0] if at == 0 else y[-1]
        share = (confidence - x[at - 1]) / (x[at] - x[at - 1])
        return y[at - 1] + share * (y[at] - y[at - 1])

    def threshold(self, rate: float) -> float:
        """The confidence to answer from, so that at most `rate` of unanswerable questions are.

        A rate that was measured counts with its standard error: on other questions it may be
        larger by that.

        Raises:
            InputError: `rate` is no share, or smaller than the questions of the fit can tell.
        """
        if not 0 <= rate <= 1:
            raise InputError(
                f"the rate of false answers must lie between 0 and 1, such as 0.05, got {rate}"
            )
        safe = [self._at_most(measured) for measured in self.rates]
        at = bisect_right(safe, rate)
        if at == 0:
            raise InputError(
                f"the calibration of this adapter tells rates of false answers from "
                f"{safe[0]:.2g} on, got {rate:g}"
            )
        return self.thresholds[at - 1]

    def _at_most(self, measured: float) -> float:
        """A measured rate with its standard error; at most 1."""
        if not self.unanswerable:
            return measured
        return min(1.0, measured + math.sqrt(measured * (1 - measured) / self.unanswerable))

    def save(self, folder: Path) -> None:
        """Writes it beside an adapter."""
        values = {"format": FORMAT, **asdict(self)}
        (folder / FILE).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def read_calibration(folder: Path) -> Calibration | None:
    """The calibration beside an adapter; None where it has none.

    Raises:
        AdapterError: the file is damaged or of a newer format.
    """
    file = folder / FILE
    if not file.exists():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if values["format"] > FORMAT:
            raise AdapterError(f"'{file}' is of a newer format; upgrade latentbank")
        found = Calibration(
            _numbers(values["confidence"]),
            _numbers(values["probability"]),
            _numbers(values["rates"]),
            _numbers(values["thresholds"]),
            dict(values.get("fitted_on") or {}),
            str(values.get("quality", "best")),
            int(values.get("unanswerable", 0)),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"the calibration '{file}' is damaged: {error}") from error
    pairs = (found.confidence, found.probability), (found.rates, found.thresholds)
    if any(not one or len(one) != len(two) for one, two in pairs):
        raise AdapterError(f"the calibration '{file}' is damaged: its curves do not fit together")
    return found


def _numbers(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
