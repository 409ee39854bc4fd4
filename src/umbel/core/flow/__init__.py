"""Workflows as plain data: what a tree of signatures sends first, what follows, and what its end takes with it.

Nothing here sends, stores or reads a clock: trees go in, calls, pieces and sizes come out.
"""
