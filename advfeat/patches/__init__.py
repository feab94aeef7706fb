"""The patch world of the paper: its data, its network, what is measured of it, its own attacks and certificates."""
