"""Checks of an analysis before anything reaches the archive or the model."""
