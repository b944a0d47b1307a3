"""Prompt upsampling: a language model writes a short prompt out, before anything is drawn."""
