"""Workflows as users write them: chain, group, chord and the rest, and how they are sent."""
