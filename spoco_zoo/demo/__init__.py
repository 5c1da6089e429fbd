"""The demonstration: made-up tissue, and the whole way from it to labels."""
