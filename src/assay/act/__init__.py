"""Interventions: frozen data, the pure functions that they stand for, and the receipts of what they did."""
