"""The vocabulary every layer shares: errors, requests, sizes, prompts. Standard library (and pydantic) only."""
