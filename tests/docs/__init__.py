"""What the documents show is executed."""
