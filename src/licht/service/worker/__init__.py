"""Workers: processes that claim jobs, draw, and finish them exactly once. What draws is passed in."""
