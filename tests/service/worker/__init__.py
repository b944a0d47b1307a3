"""Workers with a fake engine."""
