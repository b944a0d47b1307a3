"""The rendered world: frozen scenes, their pictures and maps, captions, edits and tasks; the ground truth of Licht."""
