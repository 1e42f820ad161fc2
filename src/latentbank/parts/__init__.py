"""What several methods share: networks, slots, levels of text, the reader of mid-layer states."""
