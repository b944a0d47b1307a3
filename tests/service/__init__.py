"""The service: its queue, its keys, its HTTP."""
