"""The paper's experiments as one call each."""
