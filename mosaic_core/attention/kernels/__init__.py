"""Triton kernels of the network: attention first, and what surrounds it in a block.

`entry` has the public operation on checked tensors; the other modules hold one kernel family
each with its launcher. Launchers take tensors as the engine lays them out, (member x token) rows
by channels, and check nothing: `entry` and the engine do.
"""
