"""Write the generated parts of the methods' pages, and their figures: `make methods-pages`."""

from __future__ import annotations

from benchmarks.machine import REPOSITORY
from scripts.method_pages.pages import write_pages

if __name__ == "__main__":
    print(f"{len(write_pages(REPOSITORY))} files written")
