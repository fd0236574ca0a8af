"""Products derived while the forecast streams by."""
