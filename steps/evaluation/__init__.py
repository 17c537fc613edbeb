"""Judging a model: pictures from held-out captions, their distance to real ones, and how well they show the caption."""
