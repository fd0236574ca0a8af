"""Tropical cyclones: nodes, evidence, tracks, identities, formats and probability maps."""
