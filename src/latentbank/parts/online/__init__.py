"""What methods share that learn documents by gradient: losses, steps, weights, defences."""
