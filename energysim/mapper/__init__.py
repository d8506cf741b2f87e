"""The mapspace of a layer, its presets, and the search."""
