"""Layers on the CPU's vector units."""
