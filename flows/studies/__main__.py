"""This command carries out studies of a profile: `python -m flows.studies [STUDY ...|all] [--profile demo]`"""

from flows.runtime import arguments as command_line

if __name__ == "__main__":
    command_line.check()  # before the import below, which takes seconds

    from flows.studies.flow import main

    main()
