"""What the engineer on call sees: status, alerts, and what reconciling and pruning decide."""
