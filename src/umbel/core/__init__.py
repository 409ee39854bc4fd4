"""Pure values, tables and decisions: no input or output, clock, threads, randomness or logging here."""
