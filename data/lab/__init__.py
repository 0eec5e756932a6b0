"""The lab: a small generated world in which debate is real, its simulated annotators, and its small models."""
