"""Structured pruning: what each unit is worth, what its loss costs, and which units go so that a goal is reached at the least loss."""
