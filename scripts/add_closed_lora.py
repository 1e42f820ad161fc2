"""Gives an adapter the low-rank weights of a `none` adapter, for questions that nothing fits.

BASE keeps its own weights and card; its answers from documents stay as they are.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from latentbank.adapter import find_adapter, read_config
from latentbank.errors import InputError


def main() -> None:
    """Reads both adapters and writes the folder OUT, which may be that of BASE."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", help="adapter of strata or rag")
    parser.add_argument("closed", help="adapter of the method none")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    base, closed = find_adapter(options.base), find_adapter(options.closed)
    config, other = read_config(base), read_config(closed)
    if other["method"] != "none" or config["backbone"] != other["backbone"]:
        raise InputError(f"{closed} is no adapter of `none` for {config['backbone']}")
    config["config"]["closed_lora"] = other["config"]["lora"]
    config.setdefault("training", {})["closed_lora"] = {
        "from": closed.name,
        **other.get("training", {}),
    }
    state = load_file(str(base / "adapter.safetensors"))
    added = load_file(str(closed / "adapter.safetensors"))
    state |= {f"closed_{name}": value for name, value in added.items() if name.startswith("lora.")}
    options.out.mkdir(parents=True, exist_ok=True)
    save_file(state, str(options.out / "adapter.safetensors"))
    text = json.dumps(config, indent=1, ensure_ascii=False)
    (options.out / "config.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
