"""Find known indicators in a stream of bytes, in time that hardly depends on how many are known."""
