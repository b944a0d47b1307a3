"""Rules that every file of the repository obeys: who imports whom, sizes, state, the one door, the tree."""
