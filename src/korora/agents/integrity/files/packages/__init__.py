"""System files against what the image's own packages say of them."""
