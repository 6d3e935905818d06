"""Neural-codec tokens: audio to and from codes (B, K, T)."""
