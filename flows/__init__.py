"""The order in which things happen; Prefect and the command line live here only."""
