"""One file for each change of the tables, in `versions`, named for the revision and what it does."""
