"""The machine that decides: a state with indexes, formulas read for it, one answer to each request."""
