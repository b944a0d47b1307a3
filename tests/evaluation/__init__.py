"""Tests of licht.evaluation."""
