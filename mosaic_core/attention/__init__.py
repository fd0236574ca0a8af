"""Block-sparse attention: one public operation, its readable reference and its fast kernels."""
