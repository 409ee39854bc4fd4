"""The seam between umbel and its engines: protocols, their types, settling, the registry of URL schemes."""
