"""``python -m spoco_zoo`` is the command line."""

from __future__ import annotations

from spoco_zoo.cli import main

if __name__ == "__main__":
    main()
