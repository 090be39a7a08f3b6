"""`python -m graphorch_ray`: the command, where its script is not on the path."""

from graphorch_ray.cli import main

if __name__ == "__main__":
    main()
