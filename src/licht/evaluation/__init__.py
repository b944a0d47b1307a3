"""Measuring: faithfulness to the reference, quality, speed."""
