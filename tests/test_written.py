"""What a model writes into its memories, as a cost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from latentbank.errors import InputError
from latentbank.parts.memory_lm import MemoryLM, MemoryLMConfig
from latentbank.parts.memory_lm.written import Written
from latentbank.training.language import LanguageConfig, LanguageTrainer

SMALL = {"vocab_size": 32, "width": 16, "layers": 2, "heads": 2, "head_dim": 8, "ffn": 16}


def model(architecture: str) -> MemoryLM:
    torch.manual_seed(0)
    return MemoryLM(MemoryLMConfig(architecture, window=8, chunk=4, **SMALL))


@torch.no_grad()
def steps_at(lm: MemoryLM, raw: float) -> None:
    """Makes the step gate of every token σ(raw)."""
    for name, one in lm.named_modules():
        if name.endswith("to_gates"):
            one.weight.zero_()
            one.bias.view(3, -1)[2].fill_(raw)
        elif name.endswith("to_step"):
            one.weight.zero_()
            one.bias.fill_(raw)


@pytest.mark.parametrize("architecture", ["MAC", "MAG", "MAL", "LMM", "delta"])
def test_the_cost_is_of_the_steps(architecture: str) -> None:
    lm, ids = model(architecture), torch.randint(0, 32, (2, 20))
    for raw in (-9.0, 0.0):
        steps_at(lm, raw)
        with Written(lm) as written:
            lm(ids)
        cost = written.cost()
        assert cost is not None
        share = torch.tensor(raw).sigmoid()
        assert cost.item() == pytest.approx(float(torch.log1p(share / 0.002)), rel=1e-4)
        lm(ids)  # nobody watches any more
        assert torch.equal(cost, written.cost())  # type: ignore[arg-type]


def test_a_model_without_memory_has_no_cost() -> None:
    with Written(lm := model("window")) as written:
        lm(torch.randint(0, 32, (1, 12)))
    assert written.cost() is None


def test_training_with_the_cost_writes_less(tmp_path: Path) -> None:
    def draw(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.randint(0, 32, (4, 24), generator=torch.Generator().manual_seed(step))
        return ids, ids

    costs = []
    for weight in (0.0, 1.0):
        lm = model("LMM")
        config = LanguageConfig(steps=40, learning_rate=1e-2, warmup=1, write_cost=weight)
        LanguageTrainer(lm, draw, config, tmp_path / str(weight)).run()
        with Written(lm) as written, torch.no_grad():
            lm(draw(0)[0])
        costs.append(float(written.cost()))  # type: ignore[arg-type]
    assert costs[1] < 0.7 * costs[0]


def test_a_negative_cost_is_refused() -> None:
    with pytest.raises(InputError, match="write_cost"):
        LanguageConfig(write_cost=-1.0)
