"""What VALL-E 2 does not train with."""
