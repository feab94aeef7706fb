"""Floor 5: what holds the trained network against the theory: the ledger, and Figure 3's story."""
