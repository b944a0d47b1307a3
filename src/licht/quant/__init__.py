"""Number formats smaller than 16 bits: each a pair of pure functions and one linear layer."""
