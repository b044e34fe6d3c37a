"""Weights on grids, chosen for the fewest bytes that they cost once they are coded: rate against distortion."""
