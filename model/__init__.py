"""VALL-E 2's models, codecs, text and sampling (arXiv:2406.05370). Imports nothing else of ours.

Letters, fixed everywhere: B batch, K codebooks, T frames, G group size, N groups, S text tokens,
V vocabulary, D width. Codes are (B, K, T) int64, audio is (B, samples) float32 in [-1, 1].
"""
