"""Training: data, objectives, optimisers, and a loop that survives being killed.

Imports only torch, numpy, safetensors, tokenizers and Pillow, so that it runs on any machine with a GPU.
"""
