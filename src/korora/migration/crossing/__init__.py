"""How a VM leaves and arrives: by the stream, or at rest; and how what is left is wiped."""
