"""bioimage.io bundles: write one that passes the official test, check one, load one.

Export is in `export`, the check of any bundle in `verify`, and reading in
`load`, which treats every bundle as untrusted input.
"""
