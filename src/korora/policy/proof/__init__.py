"""The proof that the rules keep every state secure (P4). Needs z3; nothing in production imports it."""
