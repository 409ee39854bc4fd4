"""The public test kit: conformance suites for engines and a clock that a test turns."""
