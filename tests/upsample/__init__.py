"""Language models that write prompts out."""
