"""`python -m densecli`: the command line."""

from densecli.cli import main

if __name__ == "__main__":
    main(prog_name="densecli")
