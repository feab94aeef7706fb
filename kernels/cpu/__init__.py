"""The engine on the CPU's vector units: compiled by Numba, tiled for its registers."""
