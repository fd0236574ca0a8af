"""The Mosaic network: configuration, geometry, layers, checkpoints."""
