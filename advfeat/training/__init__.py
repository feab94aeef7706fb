"""Training: the loop, its checkpoints, run folders."""
