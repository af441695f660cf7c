"""The API's verbs, one module per noun. Each route is one call to one service."""
