"""Files that remember how they were made."""
