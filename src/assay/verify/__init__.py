"""Verification: does a direction carry the behaviour, against controls and at measured doses?"""
