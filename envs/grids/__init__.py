"""Worlds of cells: mazes, wind, a cat and a mouse, Pac-Man; their maps, pictures and rules."""
