"""Obviously right versions of the sparse operations, in dense torch. Tests compare the fast ones
with them."""
