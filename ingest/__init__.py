"""From an analysis on a mirror to a checked slice of the 1.5 degree archive."""
