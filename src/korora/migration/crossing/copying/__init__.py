"""A disk that this daemon copies, and what of it the other host has already."""
