"""python -m imagewright."""

from imagewright.cli import main

if __name__ == "__main__":
    main(prog_name="imagewright")
