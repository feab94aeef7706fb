"""Floor 7: a page on which the theory is dragged with the mouse; needs the extra `explore` (docs/explorer.md)."""
