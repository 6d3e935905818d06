"""What VALL-E 2 does not have; each wraps the pure models."""
