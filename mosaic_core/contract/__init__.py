"""Cycle, grid, channels, schemas, artefacts and errors: numpy, xarray and pydantic only."""
