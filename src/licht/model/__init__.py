"""The networks: mathematics only. Modules and parameters bear the names of the official checkpoint keys."""
