"""Watched against unwatched: what is answered, what is known, and how the one follows from the other."""
