"""Files that remember how they were made, journals that survive a kill, contact sheets."""
