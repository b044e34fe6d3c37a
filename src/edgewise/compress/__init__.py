"""Passes that make a model smaller or faster: each is a function of a model, and accounts for what it touched and what it left alone."""
