"""`script/demo`: a story told with Korora's real commands, one module per part of it.

A user like any other: it types commands, looks at the guest from outside, and attacks from the network.
"""
