"""Vector quantisation: codebooks, how they learn, resets of dead codes, and telemetry.

The losses and moving averages are those of VQ-VAE (van den Oord et al., 2017), the online objective
and the reset those of MBC (Katraouras and Rafailidis, 2026). Knows tensors only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from latentbank.config import setting
from latentbank.errors import InputError, unknown


@dataclass(frozen=True)
class CodebookConfig:
    """How a codebook learns, and when a code is dead."""

    codes: int = setting(512, "K, codewords.")
    learning: str = setting("ema", "`gradient`, or `ema`: moving averages of counts and sums.")
    beta: float = setting(0.25, "Weight of the commitment loss.")
    decay: float = setting(0.99, "Decay of the moving averages.")
    epsilon: float = setting(1e-5, "Laplace smoothing of the counts.")
    usage_decay: float = setting(0.99, "Decay of the usage that tells dead codes.")
    reset_below: float = setting(0.1, "A code below this share of uniform usage is dead; 0: never.")
    reset_to: str = setting("worst", "What a dead code becomes: `worst` reconstructed or `random`.")
    reset_noise: float = setting(0.01, "Noise on a code that was reset.")

    def __post_init__(self) -> None:
        if self.learning not in ("gradient", "ema"):
            raise unknown("codebook learning", self.learning, ["gradient", "ema"])
        if self.reset_to not in ("worst", "random"):
            raise unknown("codebook reset", self.reset_to, ["worst", "random"])
        if not 2 <= self.codes <= 65536:
            raise InputError(f"a codebook has 2 to 65,536 codes, got {self.codes}")


@dataclass(frozen=True)
class Quantized:
    """Quantised latents.

    `values` [N, D] have a straight-through gradient; `codes` [N] are int64. `loss` is the scalar
    `‖q − sg(x)‖² + β‖sg(q) − x‖²`, a mean over elements. The first term is only there for learning
    by gradient.
    """

    values: Tensor
    codes: Tensor
    loss: Tensor


@dataclass(frozen=True)
class CodebookHealth:
    """Telemetry of a codebook.

    `perplexity` is exp of the entropy of usage, in 1 … K. `dead` counts the codes below the
    threshold. `residual` is the share of the latents' variance that the codes miss, in [0, 1] for a
    fitted codebook.
    """

    perplexity: float
    dead: int
    residual: float


class Codebook(nn.Module):
    """K codewords [K, D] and their usage. `weight` is a parameter only if learned by gradient."""

    weight: Tensor
    usage: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, width: int, config: CodebookConfig) -> None:
        super().__init__()
        self.config = config
        weight = torch.randn(config.codes, width)
        if config.learning == "gradient":
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)
        self.register_buffer("usage", torch.full((config.codes,), 1.0 / config.codes))
        self.register_buffer("counts", torch.ones(config.codes))
        self.register_buffer("sums", weight.clone())

    def nearest(self, latents: Tensor) -> Tensor:
        """Codes [N] of latents [N, D]: the smallest L2 distance."""
        return nearest_codes(latents, self.weight)

    def decode(self, codes: Tensor) -> Tensor:
        """Codewords [..., D] of codes [...]."""
        return nn.functional.embedding(codes, self.weight)

    def forward(self, latents: Tensor) -> Quantized:
        """Quantises latents [N, D]; updates nothing."""
        codes = self.nearest(latents)
        words = self.decode(codes)
        commit = (words.detach() - latents).pow(2).mean()
        loss = self.config.beta * commit
        if self.config.learning == "gradient":
            loss = loss + (words - latents.detach()).pow(2).mean()
        return Quantized(latents + (words - latents).detach(), codes, loss)

    # ---- learning

    @torch.no_grad()
    def update(
        self,
        latents: Tensor,
        codes: Tensor,
        decay: float | None = None,
        protected: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """One step of usage, moving averages (if `ema`) and reset; returns the replaced codes [R].

        `decay` overrides the config's. It is the discount α of MBC's online objective
        `Σ_i α^(t−i) ‖m_i − c(m_i)‖²`, which the discounted means minimise. `protected` [K] bool
        marks codes that are never reset, because stored documents use them. Under data parallelism
        every rank sees the statistics of all, so that all codebooks stay equal.
        """
        config = self.config
        latents, codes = _gathered(latents), _gathered(codes)
        counts = torch.bincount(codes, minlength=config.codes).to(self.counts)
        self.usage.lerp_(counts / counts.sum().clamp_min(1), 1 - config.usage_decay)
        if config.learning == "ema":
            keep = config.decay if decay is None else decay
            sums = torch.zeros_like(self.sums).index_add_(0, codes, latents.to(self.sums))
            self.counts.mul_(keep).add_(counts, alpha=1 - keep)
            self.sums.mul_(keep).add_(sums, alpha=1 - keep)
            total = self.counts.sum()
            smooth = (
                (self.counts + config.epsilon) / (total + config.codes * config.epsilon) * total
            )
            touched = counts > 0
            self.weight[touched] = (self.sums / smooth[:, None])[touched]
        return self._reset(latents, codes, protected, generator)

    def _reset(
        self,
        latents: Tensor,
        codes: Tensor,
        protected: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        config = self.config
        dead = self.usage < config.reset_below / config.codes
        if protected is not None:
            dead = dead & ~protected.to(dead.device)
        rows = dead.nonzero().flatten()[: latents.shape[0]]
        if not len(rows) or config.reset_below <= 0:
            return rows[:0]
        if config.reset_to == "worst":
            error = (latents - self.decode(codes)).pow(2).sum(1)
            chosen = error.topk(len(rows)).indices
        else:
            chosen = torch.randperm(len(latents), generator=generator)[: len(rows)]
        noise = torch.randn(len(rows), latents.shape[1], generator=generator)
        scale = latents.std(0) if len(latents) > 1 else torch.ones_like(latents[0])
        fresh = latents[chosen] + config.reset_noise * noise.to(latents) * scale
        self.weight[rows] = fresh.to(self.weight)
        self.usage[rows] = 1.0 / config.codes
        self.counts[rows] = 1.0
        self.sums[rows] = fresh.to(self.sums)
        return rows

    @torch.no_grad()
    def fit(self, latents: Tensor, rounds: int = 20, seed: int = 0) -> None:
        """Sets the codewords by k-means (Lloyd) on latents [N, D].

        An empty cluster takes one of the latents with the largest error.

        Raises:
            InputError: fewer latents than codes.
        """
        count = self.config.codes
        if latents.shape[0] < count:
            raise InputError(f"k-means needs at least {count} latents, got {latents.shape[0]}")
        generator = torch.Generator().manual_seed(seed)
        start = torch.randperm(latents.shape[0], generator=generator)[:count]
        self.weight.copy_(latents[start])
        for _ in range(rounds):
            codes = self.nearest(latents)
            used = torch.bincount(codes, minlength=count).to(latents)
            sums = torch.zeros_like(self.weight).index_add_(0, codes, latents.to(self.weight))
            full = used > 0
            self.weight[full] = sums[full] / used[full, None]
            empty = (~full).nonzero().flatten()
            if len(empty):
                error = (latents - self.decode(codes)).pow(2).sum(1)
                self.weight[empty] = latents[error.topk(len(empty)).indices].to(self.weight)
        used = torch.bincount(self.nearest(latents), minlength=count).to(latents)
        self.usage.copy_(used / used.sum())
        self.counts.copy_((used / used.sum() * count).clamp_min(self.config.epsilon))
        self.sums.copy_(self.weight * self.counts[:, None])

    @torch.no_grad()
    def health(self, latents: Tensor | None = None) -> CodebookHealth:
        """Telemetry; without latents the residual is NaN."""
        share = self.usage / self.usage.sum()
        entropy = -(share * share.clamp_min(1e-12).log()).sum()
        dead = int((self.usage < self.config.reset_below / self.config.codes).sum())
        residual = float("nan")
        if latents is not None:
            missed = (latents - self.decode(self.nearest(latents))).pow(2).sum()
            residual = float(missed / (latents - latents.mean(0)).pow(2).sum())
        return CodebookHealth(float(entropy.exp()), dead, residual)


class ResidualMeter:
    """The share of the variance of latents that their codewords miss, over all batches."""

    def __init__(self) -> None:
        self.count = 0
        self._missed = self._squares = 0.0
        self._sum: Tensor | float = 0.0

    @torch.no_grad()
    def add(self, latents: Tensor, words: Tensor) -> None:
        """Adds latents [N, D] and their codewords [N, D]."""
        self.count += latents.shape[0]
        self._missed += float((latents - words).pow(2).sum())
        self._squares += float(latents.pow(2).sum())
        self._sum = self._sum + latents.double().sum(0)

    def value(self) -> float | None:
        """The share; 0 for a perfect codebook, None before two different latents were added."""
        if not self.count:
            return None
        spread = self._squares - float(torch.as_tensor(self._sum).pow(2).sum()) / self.count
        return self._missed / spread if spread > 1e-9 * self._squares else None


@torch.no_grad()
def nearest_codes(latents: Tensor, words: Tensor) -> Tensor:
    """Codes [N] of latents [N, D]: the nearest of codewords [K, D] by L2 distance."""
    half = 0.5 * words.pow(2).sum(1)
    best = [(half - part @ words.T).argmin(1) for part in torch.split(latents.detach(), 8192)]
    return torch.cat(best) if best else latents.new_zeros(0, dtype=torch.long)


def usage_perplexity(counts: Tensor) -> float:
    """exp of the entropy of counts [K], in 1 … K; 0 without any count."""
    share = counts.double() / counts.sum().clamp_min(1)
    entropy = -(share * share.clamp_min(1e-12).log()).sum()
    return float(entropy.exp()) if bool(counts.any()) else 0.0


def clear_moments(
    optimizer_state: Callable[[Tensor], dict[str, Tensor]], weight: Tensor, rows: Tensor
) -> None:
    """Sets the optimiser's moments of the rows `rows` of `weight` to zero."""
    for value in optimizer_state(weight).values():
        if torch.is_tensor(value) and value.shape == weight.shape:
            value[rows] = 0


def _gathered(values: Tensor) -> Tensor:
    """The rows of all ranks, in rank order; the tensor itself without data parallelism."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return values
    sizes: list[int] = [0] * dist.get_world_size()
    dist.all_gather_object(sizes, values.shape[0])
    widest = max(sizes)
    padded = values.new_zeros(widest, *values.shape[1:])
    padded[: values.shape[0]] = values
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded.contiguous())
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
