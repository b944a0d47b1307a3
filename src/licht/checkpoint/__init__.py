"""Files to tensors and back: readers, key tables, strict loading, saving, and where models are found."""
