"""The Prefect side of the flows: deployments, tasks, pools, runs, and a server of one's own."""
