"""``python -m energysim``."""

from energysim.cli import main

if __name__ == "__main__":
    main(prog_name="energysim")
