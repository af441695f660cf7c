"""The nouns of a migration: frozen values, no I/O."""
