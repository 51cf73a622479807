"""Analyses that train nothing, which sites answer with sums: associations of the grade, attributions of a model."""
