"""Sizes that all cases share: those of DeepSeek Sparse Attention."""

TOPK, PAGE, HEAD_DIM = 2048, 64, 128
HEADS = (32, 16, 8)  # of attention, of a rank
LATENT, VALUE = 576, 512  # numbers of a token in the KV cache, and those that are its value
