"""The networks of amortised memory: documents to latents, questions × latents to memory tokens."""
