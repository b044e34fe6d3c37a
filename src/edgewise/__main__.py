"""`python -m edgewise`: the command line, where the script of that name isn't on the path (a systemd unit, say)."""

from edgewise.cli import main

if __name__ == "__main__":
    main()
