"""Mistakes and damages made on purpose: what users write into configurations, what happens to files.

For the tests and for ``study_faults`` alone; nothing that computes imports it, and only here is hypothesis needed.
"""
