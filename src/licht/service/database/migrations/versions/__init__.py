"""The changes, oldest first; each knows its predecessor."""
