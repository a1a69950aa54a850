"""This command is an alias of the command `python -m flows.studies`."""

from flows.runtime import arguments as command_line

if __name__ == "__main__":
    command_line.check()  # before the import below, which takes seconds

    from flows.studies.flow import main

    main()
