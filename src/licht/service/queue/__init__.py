"""Jobs as rows: submitted, claimed under a lease, finished exactly once. No job is ever only in memory."""
