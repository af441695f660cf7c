"""Commands that look into files on this machine: images, configuration, indicators."""
