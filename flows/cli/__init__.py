"""The `mosaic-ops` command."""
