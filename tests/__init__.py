"""Assay's tests. ``tiny.py`` makes the models, ``skips.py`` lists what may be skipped, ``conftest.py`` shares both."""
