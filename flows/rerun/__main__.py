"""This command repeats a recorded run and compares the results: `python -m flows.rerun RUN_ID`"""

from flows.runtime import arguments as command_line

if __name__ == "__main__":
    command_line.check()  # before the import below, which takes seconds

    from flows.rerun.repetition import main

    main()
