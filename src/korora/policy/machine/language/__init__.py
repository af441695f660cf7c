"""What rules and properties are written in: words, formulas, their text, and rules as values."""
