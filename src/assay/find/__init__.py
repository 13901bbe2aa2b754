"""Finders: one method per file, each read beside its paper."""
