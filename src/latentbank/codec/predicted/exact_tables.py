"""Tables of exponentials, sigmoids and angles that are equal on every machine.

Decimal arithmetic fills them, because floating-point libraries differ in the last bit. Knows
numbers only.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["CONTEXT", "GATES", "GATE_RANGE", "RANGE", "STEPS", "angles", "exponentials", "sigmoids"]

CONTEXT = 512  # positions in the table of angles
STEPS, RANGE = 256, 24  # exponentials: steps per 1, and the end of the table
GATES, GATE_RANGE = 512, 20  # sigmoids: steps per 1, and both ends of the table
_ANGLE_BITS = 20
_DIGITS = 50


@lru_cache(maxsize=1)
def exponentials() -> Tensor:
    """2^30 · e^(−i / STEPS), rounded, for i up to STEPS · RANGE; the last one is 0."""
    values = list(_falling(STEPS, STEPS * RANGE))
    whole = [*(round(value * (1 << 30)) for value in values), 0]
    return torch.tensor(whole, dtype=torch.float64)


@lru_cache(maxsize=1)
def sigmoids() -> Tensor:
    """1 / (1 + e^(−i / GATES)) for i from −reach to reach, in steps of 2^−24."""
    with localcontext() as context:
        context.prec = _DIGITS
        above = [1 / (1 + power) for power in _falling(GATES, GATES * GATE_RANGE + 1)]
        whole = [round(value * (1 << 24)) for value in above]
    both = [(1 << 24) - value for value in whole[:0:-1]] + whole
    return torch.tensor(both).float() / (1 << 24)


def _falling(steps: int, count: int) -> Iterator[Decimal]:
    """e^(−i / steps) for i below `count`."""
    with localcontext() as context:
        context.prec = _DIGITS
        factor, value = (Decimal(-1) / steps).exp(), Decimal(1)
        values = []
        for _ in range(count):
            values.append(value)
            value *= factor
    return iter(values)


@lru_cache(maxsize=4)
def angles(theta: float, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines [CONTEXT, D/2] of the rotary positions, in steps of 2^−20."""
    tables: npt.NDArray[np.float64] = np.zeros((2, CONTEXT, head_dim // 2))
    with localcontext() as context:
        context.prec = _DIGITS
        for pair in range(head_dim // 2):
            angle = (-Decimal(theta).ln() * (2 * pair) / head_dim).exp()
            turn = _cosine_sine(angle)
            real, imaginary = Decimal(1), Decimal(0)
            for place in range(CONTEXT):
                tables[:, place, pair] = (
                    round(real * 2**_ANGLE_BITS),
                    round(imaginary * 2**_ANGLE_BITS),
                )
                real, imaginary = (
                    real * turn[0] - imaginary * turn[1],
                    real * turn[1] + imaginary * turn[0],
                )
    cosine, sine = torch.from_numpy(tables / 2**_ANGLE_BITS).float()
    return cosine, sine


def _cosine_sine(angle: Decimal) -> tuple[Decimal, Decimal]:
    """(cosine, sine) of an angle of at most 1, by the power series."""
    term, sums = Decimal(1), [Decimal(1), Decimal(0)]
    for power in range(1, 48):
        term = term * angle / power
        sums[power % 2] += -term if power % 4 in (2, 3) else term
    return sums[0], sums[1]
