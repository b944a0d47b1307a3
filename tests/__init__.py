"""Tests mirror src/licht; golden/ holds faithfulness, architecture/ holds what every file must obey."""
