"""GGUF files become the folders that transformers would write, to the last bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latentbank.backbone.gguf import convert_llama
from latentbank.backbone.loading import _convert_any, converted_folder, packaged_gguf
from latentbank.errors import InputError

gguf = pytest.importorskip("gguf")

WIDTH, HEADS, KEY_HEADS, LAYERS = 64, 4, 2, 2
HEAD = WIDTH // HEADS
SHAPES = {
    "attn_norm": (WIDTH,),
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (KEY_HEADS * HEAD, WIDTH),
    "attn_v": (KEY_HEADS * HEAD, WIDTH),
    "attn_output": (WIDTH, WIDTH),
    "ffn_norm": (WIDTH,),
    "ffn_gate": (96, WIDTH),
    "ffn_up": (96, WIDTH),
    "ffn_down": (WIDTH, 96),
}
TOKENS = ["<|end|>", "<|start|>", "a", "b", "c", "Ġ", "ab", "Ġc"]


def write_gguf(
    path: Path,
    architecture: str = "llama",
    name: str = "tiny",
    tied: bool = True,
    more: tuple[str, ...] = (),
) -> Path:
    """A tiny model with random weights; norms in float32, matrices in Q8_0."""
    draw = np.random.default_rng(0)
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_name(name)
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(96)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_freq_base(50_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_rope_dimension_count(HEAD)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, *[1] * (len(TOKENS) - 2)])
    writer.add_token_merges(["a b", "Ġ c"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (len(TOKENS), WIDTH)}
    for layer in range(LAYERS):
        shapes |= {f"blk.{layer}.{part}": shape for part, shape in SHAPES.items()}
    shapes["output_norm"] = (WIDTH,)
    if not tied:
        shapes["output"] = (len(TOKENS), WIDTH)
    shapes |= dict.fromkeys(more, (8,))
    for part, shape in shapes.items():
        values = draw.standard_normal(shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(f"{part}.weight", values)
            continue
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(f"{part}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def both(path: Path, folder: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What our conversion writes and what transformers' does."""
    ours, theirs = folder / "ours", folder / "theirs"
    ours.mkdir()
    theirs.mkdir()
    assert convert_llama(path, ours)
    _convert_any(path, theirs)
    return files(ours), files(theirs)


@pytest.mark.parametrize("tied", [True, False])
def test_a_tiny_llama_is_what_transformers_makes_of_it(tmp_path: Path, tied: bool) -> None:
    ours, theirs = both(write_gguf(tmp_path / "tiny.gguf", tied=tied), tmp_path)
    assert {"config.json", "tokenizer.json", "model.safetensors"} < set(ours)
    assert ours == theirs


@pytest.mark.slow
@pytest.mark.real_model
def test_the_packaged_model_is_what_transformers_makes_of_it(tmp_path: Path) -> None:
    try:
        path = packaged_gguf("smollm2-135m")
    except InputError as error:
        pytest.skip(str(error))
    ours, theirs = both(path, tmp_path)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name] == theirs[name], name


@pytest.mark.parametrize(
    "unusual",
    [{"architecture": "qwen2"}, {"name": "mistral small"}, {"more": ("rope_freqs",)}],
    ids=["architecture", "mistral", "tensor"],
)
def test_what_is_unusual_is_left_to_transformers(tmp_path: Path, unusual: dict[str, Any]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert not convert_llama(write_gguf(tmp_path / "tiny.gguf", **unusual), folder)
    assert not list(folder.iterdir())


def test_no_gguf_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTBANK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "no.gguf").write_bytes(b"no model" * 100)
    with pytest.raises(InputError, match=r"no\.gguf' cannot be read"):
        converted_folder(tmp_path / "no.gguf")
    assert not list((tmp_path / "cache" / "models").iterdir())
