"""Memory layers with product keys, and sparse changes to their values."""
