"""What a run measures of its own work and says of it: seams, doubtful matches, hints, report."""
