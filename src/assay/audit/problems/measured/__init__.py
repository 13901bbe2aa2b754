"""Measurement tampering: rows with sensors are read, probes are fitted without the hidden truth, and suspects are counted."""
