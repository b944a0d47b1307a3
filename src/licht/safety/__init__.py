"""The one door: what is let in, what is let out, and how it is marked."""
