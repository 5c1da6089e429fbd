"""The label that is written: its place, its levels, and the tasks that write them."""
