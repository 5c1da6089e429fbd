"""What tasks run on: machines, clusters and their workers, and what a failure of one means."""
