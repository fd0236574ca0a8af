"""The Mosaic model, its rollout, and the contract every other package shares.

Importing this package imports nothing else; torch is loaded by the modules that need it.
"""
