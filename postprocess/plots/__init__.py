"""Figures of forecasts: one function each, no network, no display."""
