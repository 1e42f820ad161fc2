"""Banks that are open: models on shared weights, threads that answer and write, contents."""
