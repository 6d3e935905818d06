"""Fits what is no language model: codecs, tokenizers, timbres."""
