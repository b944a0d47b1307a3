"""HTTP, as clients use it."""
