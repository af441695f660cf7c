"""Where a host keeps who may do what: authorization.toml, and policies in Cedar."""
