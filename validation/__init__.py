"""Floor 5: scripts that hold the trained network against the theory."""
