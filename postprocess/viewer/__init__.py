"""The page for a forecaster's browser: static files beside the published cycles, no server."""
