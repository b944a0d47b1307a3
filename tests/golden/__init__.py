"""Faithfulness: Licht against diffusers and transformers on the same weights, case by case."""
