"""`sd-pipeline`, and `python -m pipeline_definition`: the command line, ready for Ctrl-C while it is being imported."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it with one line and the shell's status 130."""
    try:
        from pipeline_definition.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
