"""`python -m latentbank`: the command line."""

from latentbank.cli import main

if __name__ == "__main__":
    main()
