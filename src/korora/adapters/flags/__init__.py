"""How the originals of flags are kept."""
