"""Audits: claims stated first, then measured, for one problem class at a time."""
