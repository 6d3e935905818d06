"""``python -m sayso.training``; processes that are spawned need the functions in a module."""

from .commands import main

if __name__ == "__main__":
    main()
