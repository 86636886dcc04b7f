"""`python -m robustdistiller.cli` is the `robustdistiller` command."""

from robustdistiller.cli.main import main

if __name__ == "__main__":
    main()
