"""What is in memory when, how much at most, and for how long: before anything runs, and without torch."""
