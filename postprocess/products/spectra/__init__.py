"""Kinetic-energy and scalar spectra by exact spherical harmonics on grids with poles."""
