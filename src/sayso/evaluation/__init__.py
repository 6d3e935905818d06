"""How well a model speaks: protocols, metrics, a run, a report, a listening test (VALL-E 2, 4)."""
