"""The engines: each a technology that fulfils the protocols of `umbel.engine.seam`. None knows another."""
